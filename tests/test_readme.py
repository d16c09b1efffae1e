"""The README: its Python runs, its commands are understood, its paths and names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from sc_layers.checkpoints import save_network
from sc_layers.cli import main
from tests.checkpoints import samples
from tests.integrations.toys import AdaLikeGenerator

ROOT = Path(__file__).parents[1]
PAGES = [
    *(
        ROOT / name
        for name in (
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "cuda_ops/README.md",
            "examples/README.md",
        )
    ),
    *sorted(ROOT.glob("integrations/*/README.md")),
    *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.parent.name != "reference"),
]
TEXT = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


COMMANDS = [
    (page.relative_to(ROOT).as_posix(), line.split("   #")[0].strip())
    for page in PAGES
    for block in blocks(page.read_text(), "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("sc-layers ")
]


def test_python_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_network("network-snapshot.pkl", **samples.networks())
    names: dict[str, Any] = {"G": AdaLikeGenerator(resolution=32).eval()}
    images = names["G"](torch.zeros(1, names["G"].z_dim), None, noise_mode="const")
    found = blocks(TEXT, "python")
    assert len(found) >= 3
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert names["constricted"].shape == (8, 512, 16, 16)
    assert names["masks"].shape == (8, 5, 16, 16)
    attached = names["G"](torch.zeros(1, names["G"].z_dim), None, noise_mode="const")
    assert torch.equal(attached, images)
    assert Path("network.safetensors").is_file()


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_are_understood(page: str, line: str) -> None:
    command: click.Command = main
    arguments = shlex.split(line)[1:]
    while isinstance(command, click.Group) and arguments and arguments[0] in command.list_commands(click.Context(main)):
        found = command.get_command(click.Context(command), arguments.pop(0))
        assert found is not None
        command = found
    command.make_context("sc-layers", arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        # Figures of the site are computed when it is built.
        found = target.startswith(("https://", "figures/")) or (page.parent / target).exists()
        assert found, f"{page.name} links to {target}"


@pytest.mark.parametrize("row", re.findall(r"^\| (?:Eq|Sec|Fig)\..*", TEXT, re.MULTILINE))
def test_the_table_of_equations_names_what_is_there(row: str) -> None:
    _, functions, files = row.strip("| ").split(" | ")
    sources = [ROOT / file for file in re.findall(r"`([^`]+)`", files)]
    texts = [path.read_text() for source in sources for path in (source.glob("*.py") if source.is_dir() else [source])]
    for name in re.findall(r"`([^`]+)`", functions):
        last = name.split(".")[-1]
        assert any(re.search(rf"^ *(?:def|class) {last}\b", text, re.MULTILINE) for text in texts), name


def test_the_map_shows_every_room_of_the_package() -> None:
    (block,) = (block for block in blocks(TEXT, "text") if "sc_layers/" in block)
    rooms = {path.name for path in (ROOT / "sc_layers").iterdir() if path.is_dir() and path.name != "__pycache__"}
    rooms |= {path.name for path in (ROOT / "sc_layers").glob("[a-z]*.py")}
    missing = [room for room in sorted(rooms) if not re.search(rf"(?<!\w){re.escape(room)}\b", block)]
    assert not missing
