"""What is built and installed: contents of sdist and wheel, and the wheel in use away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import sc_layers

ROOT = Path(__file__).parents[1]


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist, and the wheel built from it, of the files that git knows."""
    folder = tmp_path_factory.mktemp("dist")
    files = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the wheel is installed, without its dependencies."""
    (wheel,) = distributions.glob("*.whl")
    target = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "install", *options, "--target", target, wheel, cwd=target)
    return target


def _expected_files() -> set[str]:
    """Where the files of the three source folders go inside a wheel."""
    expected = set()
    kinds = {".py", ".typed", ".cpp", ".h", ".cu", ".cuh", ".patch"}
    for folder, prefix in {"sc_layers": "", "cuda_ops": "sc_layers/", "integrations": "sc_layers/"}.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in kinds or (path.name == "README.md" and prefix):
                expected.add(prefix + path.relative_to(ROOT).as_posix())
    return expected


def test_wheel_holds_the_package_and_nothing_else(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == _expected_files()


def test_sdist_holds_what_a_wheel_is_built_from(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(m.name).parts[1:]).as_posix() for m in archive if m.isfile()}
    tops = {name.split("/")[0] for name in names}
    build = {"pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE", "PKG-INFO"}
    assert tops == build | {"sc_layers", "cuda_ops", "integrations", "sc_layers.egg-info"}


@pytest.mark.parametrize("module", ["sc_layers", "sc_layers.cuda_ops", "sc_layers.integrations"])
def test_installed_wheel_is_used_away_from_the_checkout(installed: Path, tmp_path: Path, module: str) -> None:
    program = f"import {module}; print({module}.__file__)"
    output = _run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(output.strip()).is_relative_to(installed / "sc_layers")


def test_command_of_the_installed_wheel_runs(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "sc-layers"
    output = _run(sys.executable, command, "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert output.strip() == f"sc-layers, version {sc_layers.__version__}"


def test_checkout_shadows_an_installed_wheel_as_a_whole(installed: Path) -> None:
    program = "import sc_layers.cuda_ops as ops, sc_layers.integrations as i; print(ops.__file__, i.__file__)"
    output = _run(sys.executable, "-c", program, cwd=ROOT, PYTHONPATH=str(installed))
    cuda_ops, integrations = map(Path, output.split())
    assert cuda_ops.parent == ROOT / "cuda_ops"
    assert integrations.parent == ROOT / "integrations"


def test_import_is_light(tmp_path: Path) -> None:
    program = "import sys, sc_layers; print([m for m in ('torch', 'PIL', 'scipy', 'click') if m in sys.modules])"
    output = _run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert output.strip() == "[]"


def test_public_names_can_be_imported() -> None:
    for name in sc_layers.__all__:
        assert getattr(sc_layers, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'SpatialConstrictor'"):
        sc_layers.SpatialConstrictor  # noqa: B018
