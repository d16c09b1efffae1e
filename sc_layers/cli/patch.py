"""`sc-layers patch`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path), required=False)
@click.option("--check", "mode", flag_value="check", help="Say whether the patch fits or is applied; change nothing.")
@click.option("--revert", "mode", flag_value="revert", help="Take out every line of ours, whatever else was edited.")
@click.option("--show", "mode", flag_value="show", help="Print the patch, or with --fuzzy what it would change in DIR.")
@click.option("--fuzzy", is_flag=True, help="Find the places by the lines around them: for forks and edited files.")
def patch(name: str, directory: Path | None, mode: str | None, fuzzy: bool) -> None:
    """Add spatial constriction to a StyleGAN2 code base: its training script, snapshots and metrics.

    NAME is stylegan2-ada, stylegan3 or rosinality, and DIR the top of a checkout or copy of it, or of a fork. Git is
    not needed. All files are changed or none. A revision that the patch was not made for takes --fuzzy, which compiles
    what comes out and says what it left alone.
    """
    from ..integrations import patching

    if mode == "show" and not fuzzy:
        click.echo(patching.patch_text(name), nl=False)
        return
    patching.code_base(name)
    if directory is None:
        raise click.UsageError("give DIR, the top of the code base")
    if mode == "revert":
        click.echo(f"reverted {', '.join(patching.revert_patch(name, directory))} in {directory}")
    elif fuzzy:
        _patch_fuzzily(name, directory, mode)
    elif mode == "check":
        state = patching.state(name, directory)
        click.echo(f"{directory}: {'the patch is applied' if state == 'patched' else 'the patch fits'}")
    else:
        click.echo(f"patched {', '.join(patching.apply_patch(name, directory))} in {directory}")


def _patch_fuzzily(name: str, directory: Path, mode: str | None) -> None:
    from ..integrations import patching

    found = patching.fuzzy_patch(name, directory) if mode else patching.apply_fuzzily(name, directory)
    if mode == "show":
        click.echo(found.diff(), nl=False)
        return
    done = f"{directory}: the patch fits" if mode == "check" else f"patched {', '.join(found.contents)} in {directory}"
    click.echo(done)
    for path, reason in found.left_out.items():
        click.echo(f"left alone: {path}: {reason}")
