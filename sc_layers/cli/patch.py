"""`sc-layers patch`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path), required=False)
@click.option("--check", "mode", flag_value="check", help="Say whether the patch fits or is applied; change nothing.")
@click.option("--revert", "mode", flag_value="revert", help="Undo the patch, byte for byte.")
@click.option("--show", "mode", flag_value="show", help="Print the patch; DIR is not needed.")
def patch(name: str, directory: Path | None, mode: str | None) -> None:
    """Add spatial constriction to a StyleGAN2 code base: its training script, snapshots and metrics.

    NAME is stylegan2-ada, stylegan3 or rosinality, and DIR the top of a checkout or copy of it. Git is not needed. All
    files are changed or none; a revision that the patch was not made for is left alone.
    """
    from ..integrations import patching

    if mode == "show":
        click.echo(patching.patch_text(name), nl=False)
        return
    patching.code_base(name)
    if directory is None:
        raise click.UsageError("give DIR, the top of the code base")
    if mode == "check":
        state = patching.state(name, directory)
        click.echo(f"{directory}: {'the patch is applied' if state == 'patched' else 'the patch fits'}")
        return
    action = patching.revert_patch if mode == "revert" else patching.apply_patch
    paths = action(name, directory)
    click.echo(f"{'reverted' if mode == 'revert' else 'patched'} {', '.join(paths)} in {directory}")
