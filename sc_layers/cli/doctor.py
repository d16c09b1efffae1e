"""`sc-layers doctor`: what is installed, which path computes, and what to do about each problem."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--build", "compile_now", is_flag=True, help="Compile the fused kernels now if they are not yet.")
def doctor(compile_now: bool) -> None:
    """Print versions, which path computes on each device, and what to do about each problem.

    The exit status is 1 if something is broken.
    """
    from ._diagnosis import diagnose

    sys.exit(0 if diagnose(compile_now) else 1)
