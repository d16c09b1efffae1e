"""`sc-layers completion`: commands and options completed by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_FILES = {
    "bash": 'eval "$(sc-layers completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(sc-layers completion zsh)" in ~/.zshrc, after compinit',
    "fish": "sc-layers completion fish > ~/.config/fish/completions/sc-layers.fish",
}


@click.command(epilog="Where it goes: " + "; ".join(f"{where}" for where in _FILES.values()) + ".")
@click.argument("shell", type=click.Choice(list(_FILES)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and files in SHELL: bash (from 4.4), zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None, "click completes in all three shells"
    click.echo(kind(ctx.find_root().command, {}, "sc-layers", "_SC_LAYERS_COMPLETE").source())
