"""The keyed cache of compiled libraries, with a stand-in for the compiler where its speed would cost time."""

from __future__ import annotations

import os
import re
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


def test_prebuilt_cuda_library_is_not_used_with_another_major_version_of_cuda(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = building.Step("part.o", str(tmp_path / "source.txt"), "cp $in $out")
    folder = tmp_path / "wheel"
    monkeypatch.setattr(building, "cuda_major", lambda: "13")
    (library,) = building.prebuild(folder, [building.Recipe("cuda", (step,), "cp $in $out")])
    assert building.prebuilt_library("cuda", folder) == library
    monkeypatch.setattr(building, "cuda_major", lambda: "12")
    assert building.prebuilt_library("cuda", folder) is None


# The names of PyTorch's C interface that a library may have, all of them in PyTorch 2.10, the oldest one.
FLOOR = {
    "aoti_torch__reinterpret_tensor",
    "aoti_torch_abi_version",
    "aoti_torch_copy_",
    "aoti_torch_cpu_addmm_out",
    "aoti_torch_create_cuda_guard",
    "aoti_torch_cuda_addmm_out",
    "aoti_torch_delete_cuda_guard",
    "aoti_torch_delete_library_object",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_device_type_cpu",
    "aoti_torch_device_type_cuda",
    "aoti_torch_device_type_meta",
    "aoti_torch_device_type_mps",
    "aoti_torch_device_type_privateuse1",
    "aoti_torch_device_type_xpu",
    "aoti_torch_dtype_bfloat16",
    "aoti_torch_dtype_bool",
    "aoti_torch_dtype_complex128",
    "aoti_torch_dtype_complex32",
    "aoti_torch_dtype_complex64",
    "aoti_torch_dtype_float16",
    "aoti_torch_dtype_float32",
    "aoti_torch_dtype_float64",
    "aoti_torch_dtype_float8_e4m3fn",
    "aoti_torch_dtype_float8_e4m3fnuz",
    "aoti_torch_dtype_float8_e5m2",
    "aoti_torch_dtype_float8_e5m2fnuz",
    "aoti_torch_dtype_int16",
    "aoti_torch_dtype_int32",
    "aoti_torch_dtype_int64",
    "aoti_torch_dtype_int8",
    "aoti_torch_dtype_uint16",
    "aoti_torch_dtype_uint32",
    "aoti_torch_dtype_uint64",
    "aoti_torch_dtype_uint8",
    "aoti_torch_empty_strided",
    "aoti_torch_get_current_cuda_stream",
    "aoti_torch_get_device_index",
    "aoti_torch_get_device_type",
    "aoti_torch_get_dim",
    "aoti_torch_get_dtype",
    "aoti_torch_get_size",
    "aoti_torch_get_sizes",
    "aoti_torch_get_stride",
    "aoti_torch_get_strides",
    "aoti_torch_is_contiguous",
    "aoti_torch_library_init_impl",
    "aoti_torch_new_tensor_handle",
    "aoti_torch_new_uninitialized_tensor",
    "aoti_torch_zero_",
    "torch_get_const_data_ptr",
    "torch_get_mutable_data_ptr",
    "torch_library_impl",
    "torch_parallel_for",
}
# Weak, so null where PyTorch is too old for it.
NEWER = {"torch_exception_get_what_without_backtrace"}


def _symbols(library: Path, *options: str) -> list[list[str]]:
    listing = subprocess.run(["nm", "-D", *options, str(library)], capture_output=True, text=True, check=True).stdout
    return [line.split() for line in listing.splitlines()]


def _names_from_torch(library: Path) -> dict[str, str]:
    """The kinds ("U", or "w" for weak) of all undefined symbols of the library that are PyTorch's, mangled or not."""
    undefined = dict(reversed(symbol) for symbol in _symbols(library) if len(symbol) == 2)
    return {name: kind for name, kind in undefined.items() if re.search(r"torch|N2at|3c10|6caffe2", name)}


def test_libraries_use_only_the_c_interface_of_the_oldest_pytorch() -> None:
    loaded = [loading.loaded_library(backend) for backend in ("cpu", "cuda")]
    for library in filter(None, loaded):
        names = _names_from_torch(library)
        assert names, "nm shows nothing of PyTorch"
        assert {name for name, kind in names.items() if kind == "U"} <= FLOOR
        assert {name for name, kind in names.items() if kind != "U"} <= NEWER


def test_every_pytorch_offers_the_names_that_libraries_may_use() -> None:
    library = building.torch_folder() / "lib" / f"libtorch_cpu{building.SUFFIX}"
    offered = {symbol[-1] for symbol in _symbols(library, "--defined-only")}
    assert {name for name in FLOOR if "cuda" not in name or "device_type" in name} <= offered


def test_library_needs_no_torch_library_but_the_cpus() -> None:
    library = loading.loaded_library("cpu")
    needed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    libraries = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "(NEEDED)" in line]
    assert [name for name in libraries if "torch" in name or "c10" in name or "cuda" in name] == ["libtorch_cpu.so"]
    assert "RUNPATH" not in needed
    assert torch.ops.loaded_libraries


STATIC = """
import torch
from sc_layers import SpatialConstriction
from sc_layers.ops import loading
layer = SpatialConstriction(8, 4, 2, 1, impl="fused")
layer(torch.randn(2, 8, 4, 4), torch.randn(2, 2)).sum().backward()
try:
    torch.ops.sc_layers.statistics(torch.zeros(3), 1e-8)
except RuntimeError as error:
    print(error)
print(loading.loaded_library("cpu"))
"""


@pytest.mark.slow
def test_a_static_cpp_library_stays_inside_ours(tmp_path: Path) -> None:
    compiler = " ".join(building.compiler())
    environment = {**os.environ, "CXX": f"{compiler} -static-libstdc++", "SC_LAYERS_CACHE": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", STATIC], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    message, library = run.stdout.splitlines()[-2:]
    assert "x must be [N, C, H, W], got [3]" in message
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "libstdc++" not in needed, "the compiler did not link it statically"
    assert "__cxa_throw" not in {symbol[-1] for symbol in _symbols(Path(library), "--defined-only")}
