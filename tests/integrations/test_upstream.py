"""The real code bases, patched copies of them: set STYLEGAN2_ADA_DIR, STYLEGAN3_DIR, ROSINALITY_DIR to their checkouts.

EG3D_DIR, R3GAN_DIR and PROJECTED_GAN_DIR name those of generators that we only attach to. They need what their pages in
`integrations/` name, but neither GPU nor compiler.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from sc_layers.integrations import patching

from .nvlabs_checks import make_data

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
VARIABLES = {"stylegan2-ada": "STYLEGAN2_ADA_DIR", "stylegan3": "STYLEGAN3_DIR", "rosinality": "ROSINALITY_DIR"}


def unpatched_copy(name: str, copy: Path) -> Path:
    variable = VARIABLES[name]
    if variable not in os.environ:
        pytest.skip(f"set {variable} to a checkout of {patching.CODE_BASES[name].repository}")
    if name != "rosinality":
        pytest.importorskip("psutil", reason="NVlabs' training loops need psutil")
    shutil.copytree(os.environ[variable], copy, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    return copy


def patched_copy(name: str, folder: Path) -> Path:
    copy = unpatched_copy(name, folder / name)
    patching.apply_patch(name, copy)
    return copy


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", ""), variables.pop("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    arguments = [sys.executable, *map(str, command)]
    result = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIABLES)
def test_the_patch_is_reverted_byte_for_byte(name: str, tmp_path: Path) -> None:
    copy = patched_copy(name, tmp_path)
    patching.revert_patch(name, copy)
    for patch in patching.parse_patch(patching.patch_text(name)):
        assert (copy / patch.path).read_bytes() == (Path(os.environ[VARIABLES[name]]) / patch.path).read_bytes()


CONFIGURATIONS = [("stylegan2-ada", "ada")] + [("stylegan3", f"stylegan{suffix}") for suffix in ("2", "3-t", "3-r")]
CHECKS = ["identity", "codes_act", "half_precision", "tools", "pickled", "force_fp16", "phases"]
OF_THE_CODE_BASE = ["augmentation", "plugin", "names", "dataset_tool"]  # whatever the networks
RUNS = ["scripts", "training", "fine_tuning", "without_flags"]
RUN_CONFIGURATIONS = [pair for pair in CONFIGURATIONS if pair[1] != "stylegan3-r"]  # it runs as stylegan3-t does


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "cfg"), CONFIGURATIONS)
def test_nvlabs(name: str, cfg: str, check: str, tmp_path: Path) -> None:
    run(HERE / "nvlabs_checks.py", patched_copy(name, tmp_path), check, tmp_path, cfg)


@pytest.mark.slow
@pytest.mark.parametrize("check", RUNS)
@pytest.mark.parametrize(("name", "cfg"), RUN_CONFIGURATIONS)
def test_nvlabs_runs(name: str, cfg: str, check: str, tmp_path: Path) -> None:
    run(HERE / "nvlabs_checks.py", patched_copy(name, tmp_path), check, tmp_path, cfg)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stylegan2-ada", "stylegan3"])
def test_a_loop_of_ones_own_trains_and_resumes_by_the_recipe(name: str, tmp_path: Path) -> None:
    checkout = unpatched_copy(name, tmp_path / name)
    command = (HERE / "own_loop.py", name, checkout, tmp_path)
    first, _ = map(float, run(*command).splitlines()[-1].split())
    _, last = map(float, run(*command, tmp_path / "snapshot-200.pkl").splitlines()[-1].split())
    assert last < 0.8 * first  # the recogniser has learned to read the codes
    assert (tmp_path / "codes000000.png").is_file()
    assert (tmp_path / "snapshot-400.pkl").is_file()


# Code bases without a patch of their own: variable, repository, folder in it.
OTHERS = {
    "eg3d": ("EG3D_DIR", "NVlabs/eg3d", "eg3d"),
    "r3gan": ("R3GAN_DIR", "brownvc/R3GAN", ""),
    "projected-gan": ("PROJECTED_GAN_DIR", "autonomousvision/projected-gan", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("code_base", OTHERS)
def test_other_generators_are_attached_trained_shown_saved_and_detached(code_base: str) -> None:
    variable, repository, folder = OTHERS[code_base]
    if variable not in os.environ:
        pytest.skip(f"set {variable} to a checkout of {repository}")
    run(HERE / "generator_checks.py", Path(os.environ[variable], folder), code_base)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cfg"), RUN_CONFIGURATIONS)
def test_torch_compile_breaks_nowhere_but_where_upstream_does(name: str, cfg: str, tmp_path: Path) -> None:
    print(run(HERE / "nvlabs_checks.py", patched_copy(name, tmp_path), "compiled", tmp_path, cfg))


@pytest.mark.slow
@pytest.mark.parametrize("check", OF_THE_CODE_BASE)
@pytest.mark.parametrize(("name", "cfg"), CONFIGURATIONS[:2])
def test_what_nvlabs_need_of_others(name: str, cfg: str, check: str, tmp_path: Path) -> None:
    run(HERE / "nvlabs_checks.py", patched_copy(name, tmp_path), check, tmp_path, cfg)


def train_nvlabs(copy: Path, outdir: Path, *arguments: str) -> tuple[Path, list[dict[str, Any]]]:
    """Run train.py for 17 batches in three ticks; its last snapshot, and the statistics of the ticks."""
    quiet = ("-W", "error:grid_sample_gradfix not supported", "-W", "error:conv2d_gradfix not supported")
    small = ("--gpus=1", "--batch=4", "--workers=1", "--snap=1", "--metrics=none", "--sc-codes=4", "--sc-res=8,16")
    script = HERE / "small_train.py"
    printed = run(*quiet, script, f"--outdir={outdir}", *small, *arguments, cwd=copy, OMP_NUM_THREADS="1")
    print(*arguments, *[line for line in printed.splitlines() if line.startswith("tick")][-1:])
    folder = max(outdir.iterdir())
    ticks = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    return max(folder.glob("network-snapshot-*.pkl")), ticks


TRAINED = [("stylegan2-ada", ("--cfg=auto",)), ("stylegan3", ("--cfg=stylegan2", "--gamma=1"))]


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [("--aug=ada",), ("--aug=fixed", "--p=0.8", "--cond=1")], ids=["ada", "fixed"])
@pytest.mark.parametrize(("name", "options"), TRAINED, ids=[name for name, _ in TRAINED])
def test_train_py_runs_with_augmentation_and_resumes(
    name: str, options: tuple[str, ...], augmentation: tuple[str, ...], tmp_path: Path
) -> None:
    copy = patched_copy(name, tmp_path)
    arguments = (f"--data={make_data(tmp_path, 32)}", *options, *augmentation)
    snapshot, first = train_nvlabs(copy, tmp_path / "runs", *arguments)
    _, second = train_nvlabs(copy, tmp_path / "runs", *arguments, f"--resume={snapshot}")
    for ticks in (first, second):
        assert [tick["Progress/tick"]["mean"] for tick in ticks] == [0, 1, 2]
        losses = {key: value for tick in ticks for key, value in tick.items() if key.startswith("Loss/")}
        assert all(math.isfinite(loss["mean"]) for loss in losses.values())
        assert {"Loss/G/loss", "Loss/D/loss", "Loss/pl_penalty", "Loss/r1_penalty", "Loss/PS/loss"} <= losses.keys()
        assert len({tick["Loss/r1_penalty"]["mean"] for tick in ticks}) == 2  # of batches 0 and 16
        assert all(tick["Progress/augment"]["mean"] == pytest.approx(0.8) for tick in ticks) == ("--p=0.8" in arguments)


@pytest.mark.slow
def test_the_projector_of_stylegan2_ada_finds_codes(tmp_path: Path) -> None:
    pytest.importorskip("imageio", reason="projector.py needs imageio")
    run(HERE / "nvlabs_checks.py", patched_copy("stylegan2-ada", tmp_path), "projector", tmp_path, "ada")


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Nested dicts and lists with the same tensors and numbers, bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert first == second, where


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cfg"), RUN_CONFIGURATIONS)
def test_without_flags_the_training_gives_the_bits_of_the_unpatched_code_base(
    name: str, cfg: str, tmp_path: Path
) -> None:
    results = []
    for copy in (unpatched_copy(name, tmp_path / "unpatched"), patched_copy(name, tmp_path)):
        folder = tmp_path / f"run-{copy.name}"
        folder.mkdir()
        run(HERE / "nvlabs_checks.py", copy, "plain", folder, cfg)
        results.append(torch.load(folder / "all.pt"))
    assert results[0][1][0]["Loss/G/loss"]["num"] > 0
    assert_same(*results)


OPTIONS = {
    "stylegan2-ada": ["--cfg=auto"],
    "stylegan3": ["--cfg=stylegan3-t", "--batch=8", "--gamma=1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_without_flags_a_dry_run_prints_the_same(name: str, tmp_path: Path) -> None:
    old = tmp_path / "old"  # stylegan3 needs what setuptools ships no more
    old.mkdir()
    (old / "pkg_resources.py").write_text("from packaging.version import parse as parse_version\n")
    data = tmp_path / "data"
    data.mkdir()
    for index in range(4):
        PIL.Image.new("RGB", (16, 16), (60 * index, 0, 0)).save(data / f"{index}.png")
    arguments = ["train.py", *OPTIONS[name], f"--data={data}", "--outdir=runs", "--gpus=1", "--dry-run"]
    unpatched = unpatched_copy(name, tmp_path / "unpatched")
    printed = run(HERE / "on_cpu.py", *arguments, cwd=unpatched, PYTHONPATH=str(old))
    assert '"batch_size"' in printed
    patched = patched_copy(name, tmp_path)
    assert run(HERE / "on_cpu.py", *arguments, cwd=patched, PYTHONPATH=str(old), SC_LAYERS_COMPAT="0") == printed
    repaired = run(HERE / "on_cpu.py", *arguments, cwd=patched, PYTHONPATH=str(old))
    assert options_in(repaired) == options_in(printed)  # betas may be 0.0 in place of 0


def options_in(printed: str) -> Any:
    return json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]


@pytest.fixture
def rosinality(tmp_path: Path) -> Path:
    """A patched copy with narrow networks, and a data set of 16x16 images in it."""
    return made_small(patched_copy("rosinality", tmp_path))


def made_small(copy: Path) -> Path:
    lmdb = pytest.importorskip("lmdb", reason="rosinality's data sets need lmdb")
    model = copy / "model.py"
    model.write_bytes(model.read_bytes().replace(b": 512,", b": 16,"))
    environment = lmdb.open(str(copy / "data"), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for index in range(8):
            picture = io.BytesIO()
            PIL.Image.new("RGB", (16, 16), (30 * index, 200, 90)).save(picture, "PNG")
            transaction.put(f"16-{index:05d}".encode(), picture.getvalue())
        transaction.put(b"length", b"8")
    environment.close()
    return copy


CODES = ["--sc-codes=4", "--sc-res=8,16", "--ps-weight=0.1"]


def train_rosinality(copy: Path, *arguments: str, script: str = "train.py") -> dict[str, Any]:
    """One iteration of the training script, and the checkpoint that it writes."""
    small = ["--size=16", "--batch=4", "--n_sample=4", "--iter=1", "--channel_multiplier=1"]
    run(HERE / "on_cpu.py", script, *small, *arguments, "data", cwd=copy)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(copy / "checkpoint" / "000000.pt", weights_only=True)


@pytest.mark.slow
def test_rosinality_trains_resumes_and_generates(rosinality: Path) -> None:
    first = train_rosinality(rosinality, *CODES)
    assert first["sc"]["num_codes"] == 4
    kept = rosinality / "checkpoint" / "first.pt"
    shutil.copy(rosinality / "checkpoint" / "000000.pt", kept)
    second = train_rosinality(rosinality, *CODES, f"--ckpt={kept}")
    assert any(not torch.equal(second["q"][name], value) for name, value in first["q"].items())
    frozen = train_rosinality(rosinality, *CODES, f"--ckpt={kept}", "--sc-freeze-g=true")
    for name, value in first["g"].items():
        if ".constriction." not in name and "noises." not in name:
            assert torch.equal(frozen["g"][name], value), name
    run(
        HERE / "on_cpu.py",
        "generate.py",
        *["--size=16", "--pics=2", "--truncation=0.7", "--channel_multiplier=1", f"--ckpt={kept}"],
        cwd=rosinality,
    )
    assert (rosinality / "sample" / "000001.png").stat().st_size > 0


@pytest.mark.slow
def test_rosinality_trains_with_augmentation(rosinality: Path) -> None:
    trained = train_rosinality(rosinality, *CODES, "--augment", "--augment_p=0.8")
    assert all(value.isfinite().all() for value in trained["d"].values())


@pytest.mark.slow
def test_rosinality_without_flags_and_from_its_own_checkpoint(rosinality: Path) -> None:
    plain = train_rosinality(rosinality)
    assert "sc" not in plain
    assert "q" not in plain
    kept = rosinality / "checkpoint" / "plain.pt"
    shutil.copy(rosinality / "checkpoint" / "000000.pt", kept)
    tuned = train_rosinality(rosinality, *CODES, f"--ckpt={kept}")
    gains = [value for name, value in tuned["g"].items() if name.endswith("mask_gain")]
    assert all(0 < gain.abs().max() < 0.1 for gain in gains)


REPAIRED = """import runpy
import torchvision.utils
from sc_layers.integrations import compat
compat.repair_save_image(torchvision.utils)
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_rosinality_without_flags_gives_the_bits_of_the_unpatched_code_base(rosinality: Path, tmp_path: Path) -> None:
    unpatched = made_small(unpatched_copy("rosinality", tmp_path / "unpatched"))
    (unpatched / "repaired.py").write_text(REPAIRED)
    first = train_rosinality(unpatched, script="repaired.py")
    second = train_rosinality(rosinality)
    given = {key: value for key, value in vars(second.pop("args")).items() if not key.startswith(("sc_", "ps_", "q_"))}
    assert given == vars(first.pop("args"))
    assert_same(first, second)


@pytest.mark.slow
def test_commands_run_on_checkpoints_of_rosinality(rosinality: Path, tmp_path: Path) -> None:
    train_rosinality(rosinality, *CODES)
    code = [str(rosinality / "checkpoint" / "000000.pt"), "--code", str(rosinality), "--device", "cpu"]
    arguments = [*code, "--outdir", str(tmp_path / "out")]
    run("-m", "sc_layers", "generate", *arguments, "--seeds", "0-1", "--truncation", "0.7")
    run("-m", "sc_layers", "traverse", *arguments, "--points", "3")
    with PIL.Image.open(tmp_path / "out" / "traverse0000.gif") as gif:
        assert gif.size == (4 * 16, 2 * 16)  # above the masks
    printed = run("-m", "sc_layers", "metrics", *arguments, "--distance", "mse")
    assert "of 4 codes active" in printed
