"""What is built and installed: contents of sdist and wheel, and the wheel in use away from the checkout."""

from __future__ import annotations

import os
import platform
import re
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


def _copy_checkout(target: Path) -> Path:
    """Copy the files and links that git knows."""
    files = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\n")
    for name in filter(None, files):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            copy.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            copy.write_bytes((ROOT / name).read_bytes())
    return target


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    source = _copy_checkout(folder / "source")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
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
    """Files of the wheel: the package's own, and those of the folders that it links to."""
    kinds = {".py", ".typed", ".cpp", ".h", ".cu", ".cuh", ".patch", ".html", ".css", ".js"}
    folders = {
        ROOT / "sc_layers": "sc_layers",
        ROOT / "cuda_ops" / "csrc": "sc_layers/ops/csrc",
        ROOT / "integrations": "sc_layers/integrations/patches",
    }
    return {
        f"{place}/{path.relative_to(folder).as_posix()}"
        for folder, place in folders.items()
        for path in folder.rglob("*")
        if path.suffix in kinds or path.name == "README.md"
    }


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
    assert tops == build | {"sc_layers", "sc_layers.egg-info"}


PACKAGE_DATA = """
import sc_layers.ops.building as building, sc_layers.integrations.patching as patching
print(building.__file__, len(building.source_hash("cpu")), len(patching.patch_text("stylegan3")))
"""


def test_installed_wheel_has_sources_and_patches_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    output = _run(sys.executable, "-c", PACKAGE_DATA, cwd=tmp_path, PYTHONPATH=str(installed))
    file, length_of_hash, length_of_patch = output.split()
    assert Path(file).is_relative_to(installed / "sc_layers")
    assert int(length_of_hash) == 64
    assert int(length_of_patch) > 1000
    assert (installed / "sc_layers" / "ops" / "csrc" / "constrict.h").is_file()


def test_editable_install_has_sources_and_patches(tmp_path: Path) -> None:
    source, target = _copy_checkout(tmp_path / "source"), tmp_path / "site"
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "install", *options, "--target", target, "--editable", source, cwd=tmp_path)
    # Without the environment's own packages, of which one may be another editable install.
    program = f"import site; site.addsitedir({str(target)!r})\n{PACKAGE_DATA}"
    output = _run(sys.executable, "-S", "-c", program, cwd=tmp_path, PYTHONPATH="")
    assert Path(output.split()[0]).is_relative_to(source / "sc_layers")


@pytest.mark.parametrize("name", ["tests", "setup", "benchmarks", "examples", "cuda_ops"])
def test_nothing_beside_the_package_is_imported_as_its_part(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"import sc_layers.{name}"], cwd=ROOT, capture_output=True, text=True
    )
    assert f"No module named 'sc_layers.{name}'" in result.stderr


def test_command_of_the_installed_wheel_runs(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "sc-layers"
    output = _run(sys.executable, command, "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert output.strip() == f"sc-layers, version {sc_layers.__version__}"


def test_checkout_shadows_an_installed_wheel_as_a_whole(installed: Path) -> None:
    output = _run(sys.executable, "-c", PACKAGE_DATA, cwd=ROOT, PYTHONPATH=str(installed))
    assert Path(output.split()[0]).parent == ROOT / "sc_layers" / "ops"


@pytest.fixture(scope="module")
def binary_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` makes of a fresh checkout, with the CPU's kernels alone."""
    source = _copy_checkout(tmp_path_factory.mktemp("binary") / "source")
    environment = ("--old-file", f"{sys.prefix}/.ready", f"VENV={sys.prefix}")
    _run("make", "wheel", *environment, "PREBUILD=cpu", cwd=source, SC_LAYERS_CACHE=str(source / "cache"))
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.mark.slow
def test_binary_wheel_is_for_every_python_and_many_linuxes(binary_wheel: Path) -> None:
    machine = platform.machine()
    assert re.fullmatch(rf"sc_layers-[\d.]+-py3-none-manylinux[\w.]+_{machine}\.whl", binary_wheel.name), binary_wheel
    names = {name for name in zipfile.ZipFile(binary_wheel).namelist() if not re.search(r"\.dist-info/|/$", name)}
    prebuilt = {f"sc_layers/ops/prebuilt/sc_layers_cpu.so{suffix}" for suffix in ("", ".json")}
    assert names == _expected_files() | prebuilt  # and no library of PyTorch's or of the system


USE_OF_THE_LAYER = """
import torch
from sc_layers import SpatialConstriction
from sc_layers.ops import loading

layer = SpatialConstriction(8, 16, num_codes=2, impl="fused")
x = torch.randn(2, 8, 16, 16, requires_grad=True)
layer(x, torch.randn(2, 2)).square().sum().backward()
assert x.grad.isfinite().all()
print(loading.loaded_library("cpu"))
"""


@pytest.mark.slow
def test_binary_wheel_needs_no_compiler(binary_wheel: Path, tmp_path: Path) -> None:
    environment, cache = tmp_path / "environment", tmp_path / "cache"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "install", *options, "--target", site, binary_wheel, cwd=tmp_path)
    # PyTorch and NumPy are lent by this environment; its own sc_layers comes after the one just installed.
    (site / "lent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    lonely = {"PATH": str(python.parent), "CXX": "", "PYTHONPATH": "", "SC_LAYERS_CACHE": str(cache)}
    library = _run(python, "-c", USE_OF_THE_LAYER, cwd=tmp_path, **lonely)
    assert Path(library.strip()).is_relative_to(site)
    assert not cache.exists()


def test_import_is_light(tmp_path: Path) -> None:
    program = "import sys, sc_layers; print([m for m in ('torch', 'PIL', 'scipy', 'click') if m in sys.modules])"
    output = _run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert output.strip() == "[]"


def test_public_names_can_be_imported() -> None:
    for name in sc_layers.__all__:
        assert getattr(sc_layers, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'SpatialConstrictor'"):
        sc_layers.SpatialConstrictor  # noqa: B018
