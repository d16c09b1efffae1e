"""The keyed cache of compiled libraries, with a stand-in for the compiler where its speed would cost time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sc_layers.ops import building, loading

ROOT = Path(__file__).parents[2]
# Compiles with a shell script: notes that it ran, waits as long as the file `wait` says, and copies the source.
SLOW_COMPILE = """
from pathlib import Path
from sc_layers.ops import building
folder = Path({folder!r})
step = building.Step("part.o", str(folder / "source.txt"), f"sh {{folder}}/compile.sh $in $out")
print(building.build(building.Recipe("cpu", (step,), "cp $in $out")))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SC_LAYERS_CACHE", str(folder))
    (tmp_path / "source.txt").write_text("a library")
    (tmp_path / "log").touch()
    (tmp_path / "wait").write_text("0")
    (tmp_path / "compile.sh").write_text(f"echo $$ >> {tmp_path}/log; sleep $(cat {tmp_path}/wait); cp $1 $2")
    return folder


def _start(folder: Path) -> subprocess.Popen[str]:
    code = SLOW_COMPILE.format(folder=str(folder))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, start_new_session=True, **pipes)


def _compiler_runs(folder: Path) -> int:
    return len((folder / "log").read_text().split())


def test_two_processes_at_once_compile_once(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "wait").write_text("1")
    processes = [_start(tmp_path), _start(tmp_path)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert outputs[0][0] == outputs[1][0]
    assert Path(outputs[0][0].strip()).read_text() == "a library"
    assert _compiler_runs(tmp_path) == 1
    assert sum("compiling the cpu kernels" in errors for _, errors in outputs) == 1


def test_killed_compile_leaves_nothing_broken(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "wait").write_text("60")
    process = _start(tmp_path)
    for _ in range(1200):
        if _compiler_runs(tmp_path):
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(cache.glob("*/sc_layers_cpu*"))

    (tmp_path / "wait").write_text("0")
    output, errors = _start(tmp_path).communicate(timeout=120)
    assert Path(output.strip()).read_text() == "a library", errors
    assert _compiler_runs(tmp_path) == 2
    assert not list(cache.glob("*.partial"))


def test_failed_compile_shows_the_compilers_message_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    step = building.Step("part.o", str(tmp_path / "source.txt"), "sh -c 'echo no such header >&2; exit 3'")
    with pytest.raises(building.BuildError, match="no such header"):
        building.build(building.Recipe("cpu", (step,), "cp $in $out"))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_unwritable_cache_names_the_variable_that_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SC_LAYERS_CACHE", str(tmp_path / "file"))
    with pytest.raises(building.BuildError, match="SC_LAYERS_CACHE"):
        building.build(building.Recipe("cpu", (), "true"))


def test_key_depends_on_everything_that_the_binary_does(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = building.cpu_recipe()
    keys = {building.cache_key(recipe)}
    keys.add(building.cache_key(replace(recipe, tools=("another compiler 1.0",))))
    keys.add(building.cache_key(replace(recipe, link=recipe.link + " -g")))
    keys.add(building.cache_key(building.cpu_recipe(("-g",))))
    for name in ("source_hash", "torch_version"):
        with monkeypatch.context() as patch:
            patch.setattr(building, name, lambda *_: "another")
            keys.add(building.cache_key(recipe))
    with monkeypatch.context() as patch:
        patch.setattr(building.platform, "machine", lambda: "riscv64")
        keys.add(building.cache_key(recipe))
    assert len(keys) == 7
    assert building.cache_key(building.cpu_recipe()) == building.cache_key(recipe)


def test_cache_follows_the_users_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SC_LAYERS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert building.cache_folder() == tmp_path / "sc_layers"
    monkeypatch.setenv("SC_LAYERS_CACHE", str(tmp_path / "mine"))
    assert building.cache_folder() == tmp_path / "mine"


def test_named_compiler_must_exist_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(building.BuildError, match="looked for no-such-compiler"):
        building.compiler()
    with pytest.raises(building.BuildError, match="does not run"):
        building.compiler_version(["false"])


def test_prebuilt_library_is_used_only_if_made_from_these_sources(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = building.Step("part.o", str(tmp_path / "source.txt"), "cp $in $out")
    folder = tmp_path / "wheel"
    (library,) = building.prebuild(folder, [building.Recipe("cpu", (step,), "cp $in $out")])
    assert building.prebuilt_library("cpu", folder) == library
    assert sorted(path.name for path in folder.iterdir()) == [library.name, f"{library.name}.json"]
    monkeypatch.setenv("SC_LAYERS_PREBUILT", str(folder))
    assert loading.locate("cpu") == library
    monkeypatch.setattr(building, "source_hash", lambda backend: "changed")
    assert building.prebuilt_library("cpu", folder) is None
    with pytest.raises(building.BuildError, match="no cpu library made from these sources"):
        loading.locate("cpu")


def test_library_needs_no_torch_library_but_the_cpus() -> None:
    library = loading.loaded_library("cpu")
    needed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    libraries = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "(NEEDED)" in line]
    assert [name for name in libraries if "torch" in name or "c10" in name or "cuda" in name] == ["libtorch_cpu.so"]
    assert "RUNPATH" not in needed
    assert torch.ops.loaded_libraries
