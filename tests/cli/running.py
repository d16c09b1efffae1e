"""Running the commands in this process, as a user would on the command line."""

from __future__ import annotations

from click.testing import CliRunner, Result

from sc_layers.cli import main

TINY_TRAINING = (
    *("train", "--data", "shapes3d", "--resolution", "32", "--preset", "demo", "--kimg", "0.016", "--batch", "8"),
    *("--module-list", "[Const-8, ResConv-up-1, C_spgroup-2-2, ResConv-up-1, C_spgroup-1-1, ResConv-up-1]"),
)


def run(*arguments: object) -> Result:
    """What `sc-layers ARGUMENTS` prints and ends with."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_mistake(result: Result, *parts: str) -> None:
    """Assert that a command ended with status 2 and one line that holds `parts`, and not with a traceback."""
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert lines[-1].startswith("Error: "), result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[-1]
