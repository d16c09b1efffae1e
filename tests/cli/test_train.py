"""`sc-layers train`: runs, resuming, and every mistake in one line with exit status 2."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from PIL import Image

from sc_layers import load_network
from tests.cli.running import TINY_TRAINING, assert_mistake, run


def test_run_uses_the_settings_given(run_dir: Path) -> None:
    options = json.loads((run_dir / "training_options.json").read_text())
    assert options["data"] == "shapes3d"
    assert options["training"]["seed"] == 3
    assert options["training"]["batch"] == 8
    assert options["training"]["r1_gamma"] == 1.0
    assert options["preset"] == "demo"
    assert "C_spgroup-2-2" in options["networks"]["generator"]["module_list"]
    assert re.fullmatch(r"00000-shapes3d32-demo-ps_sc-batch8-seed3-modules[0-9a-f]{8}", run_dir.name)


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = run(*TINY_TRAINING, "--outdir", tmp_path / "runs", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "3 codes" in result.output
    assert '"batch": 8' in result.output
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def own_run(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the run, to go on in."""
    return shutil.copytree(run_dir, tmp_path / "run")


def test_resume_takes_everything_from_the_run_and_goes_on_in_its_folder(own_run: Path) -> None:
    result = run("train", "--resume", own_run, "--kimg", "0.024", "--gamma", "2")
    assert result.exit_code == 0, result.output
    assert "at 0.016 kimg" in result.output
    assert "note: r1_gamma 1.0 -> 2.0" in result.output
    assert f"finished: {own_run / 'network-snapshot-000000.024.safetensors'}" in result.output
    options = json.loads((own_run / "training_options.json").read_text())
    assert options["preset"] == "demo"
    assert options["training"]["batch"] == 8
    assert options["training"]["seed"] == 3
    assert options["training"]["r1_gamma"] == 2
    assert [json.loads(line)["kimg"] for line in (own_run / "stats.jsonl").read_text().splitlines()] == [0.016, 0.024]


def test_resume_with_an_outdir_begins_a_folder(run_dir: Path, tmp_path: Path) -> None:
    result = run("train", "--resume", run_dir, "--kimg", "0.024", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    (resumed,) = tmp_path.iterdir()
    assert json.loads((resumed / "stats.jsonl").read_text())["kimg"] == 0.024


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--model", "gan"), ("model cannot change from ps_sc to gan",)),
        (("--latents", "normal"), ("latents cannot change from uniform to normal",)),
        (("--preset", "celeba"), ("--preset cannot change from demo to celeba",)),
        (("--resolution", "64"), ("--resolution cannot change from 32 to 64",)),
        (("--module-list", "[Const-8]"), ("--module-list and --resume exclude each other",)),
        (("--codes", "4"), ("--codes and --resume exclude each other",)),
        (("--config", "x.json"), ("--config and --resume exclude each other",)),
        ((), ("nothing to do: 16 images were seen",)),
    ],
)
def test_what_cannot_change_on_resuming_is_named(own_run: Path, flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_run.iterdir()}
    assert_mistake(run("train", "--resume", own_run, *flags), *parts)
    assert {path: path.stat().st_mtime_ns for path in own_run.iterdir()} == before


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_run_is_repeated_from_its_configuration(run_dir: Path, tmp_path: Path, suffix: str) -> None:
    text = (run_dir / "training_options.json").read_text()
    config = tmp_path / f"config{suffix}"
    config.write_text(text if suffix == ".json" else yaml.safe_dump(json.loads(text)))
    result = run("train", "--config", config, "--outdir", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    (repeated,) = (tmp_path / "runs").iterdir()
    assert json.loads((repeated / "training_options.json").read_text()) == json.loads(text)
    name = "network-snapshot-000000.016.safetensors"
    ours, theirs = (load_network(folder / name)["G_ema"].state_dict() for folder in (repeated, run_dir))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ("config.json is no valid .json",)),
        ("[1]", ("config.json must hold data, resolution", "networks, training")),
        ('{"data": "shapes3d", "colour": 1}', ("got colour",)),
        ('{"data": "shapes3d", "training": 3}', ("must hold",)),
        ('{"data": "shapes3d", "training": {"speed": 3}}', ("unknown settings of a training: speed",)),
        ('{"data": "shapes3d", "training": {"batch": "many"}}', ("a setting of a training has a value of the wrong",)),
        ('{"preset": "demo"}', ("--data is missing",)),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, content: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "config.json").write_text(content)
    assert_mistake(run("train", "--config", tmp_path / "config.json", "--outdir", tmp_path / "runs"), *parts)
    assert not (tmp_path / "runs").exists()


def test_tpl_is_measured_after_each_snapshot(tmp_path: Path) -> None:
    options = ("--tpl", "tpl_small_0.3", "--distance", "mse", "--tensorboard")
    result = run(*TINY_TRAINING, "--outdir", tmp_path, "--snap", "0.008", *options)
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    lines = (folder / "metric-tpl_small_0.3.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[-1])["snapshot_pkl"] == "network-snapshot-000000.016.safetensors"
    assert (folder / "traversal-000000.016.png").exists()
    assert list(folder.glob("events.out.tfevents.*"))


def test_metrics_are_measured_after_each_snapshot(tmp_path: Path) -> None:
    options = ("--metrics", "ppl", "--distance", "mse", "--num-images", "4", "--tensorboard")
    result = run(*TINY_TRAINING, "--outdir", tmp_path, "--snap", "0.008", *options)
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    assert len((folder / "metric-ppl.jsonl").read_text().splitlines()) == 2


def test_ablations_have_options_and_folders_of_their_own(tmp_path: Path) -> None:
    for options in (("--mask", "softmax"), ("--mask", "none"), ("--rects", "2"), ("--codes", "2"), ("--width", "2")):
        result = run(*TINY_TRAINING, "--outdir", tmp_path, *options)
        assert result.exit_code == 0, result.output
    files = [folder / "training_options.json" for folder in sorted(tmp_path.iterdir())]
    assert len({path.parent.name[6:] for path in files}) == 5
    networks = [json.loads(path.read_text())["networks"] for path in files]
    modules = [described["generator"]["module_list"] for described in networks]
    assert [re.match(r"\[Const-\d+", text).group() for text in modules] == [*["[Const-8"] * 4, "[Const-16"]
    assert len({described["discriminator"]["fmap_max"] for described in networks[:4]}) == 1
    assert networks[4]["discriminator"]["fmap_max"] == 2 * networks[0]["discriminator"]["fmap_max"]
    assert [re.findall(r"C_[\w-]+", text) for text in modules] == [
        ["C_spgroup_sm-2", "C_spgroup_sm-1"],
        ["C_global-2", "C_global-1"],
        ["C_spgroup-2-2", "C_spgroup-2-1"],
        ["C_spgroup-2-1", "C_spgroup-1-1"],
        ["C_spgroup-2-2", "C_spgroup-1-1"],
    ]


def test_ib_gan_trains_goes_on_and_is_measured(tmp_path: Path) -> None:
    options = ("--model", "ib_gan", "--latents", "normal", "--z-dim", "6", "--bottleneck-weight", "0.2")
    result = run(*TINY_TRAINING, "--outdir", tmp_path, *options)
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    content = json.loads((folder / "training_options.json").read_text())
    assert content["networks"]["recognizer"]["z_dim"] == 6
    assert content["training"]["bottleneck_weight"] == 0.2
    result = run("train", "--resume", folder, "--kimg", "0.024")
    assert result.exit_code == 0, result.output
    measured = ("--metrics", "factor_vae,tpl_small_0.3", "--data", "shapes3d", "--distance", "mse", "--effort", "0.01")
    result = run("metrics", folder, *measured)
    assert result.exit_code == 0, result.output
    assert "factor_vae" in result.output
    networks = load_network(folder / "network-snapshot-000000.024.safetensors")
    assert networks["Q"](networks["G_ema"](torch.randn(4, networks["G_ema"].num_codes))).shape[1] == 3


def test_mistakes_in_training_are_named_and_write_nothing(tmp_path: Path) -> None:
    outdir = tmp_path / "runs"
    folder = tmp_path / "pictures"
    folder.mkdir()

    def train(*arguments: object) -> Result:
        return run("train", "--preset", "demo", "--outdir", outdir, *arguments)

    shapes = ("--data", "shapes3d", "--resolution", "32")
    assert_mistake(train("--data", "shapes4d"), "shapes4d", "expected shapes3d, dsprites")
    assert_mistake(train("--data", folder), str(folder))
    assert_mistake(train(*shapes, "--module-list", "[Const-8, ResKonv-up-1]"), "ResKonv-up-1", "ResConv")
    assert_mistake(train(*shapes, "--module-list", "[Const-8, ResConv-up-1, C_spgroup-1-1]"), "32", "8")
    assert_mistake(train(*shapes, "--batch", "6"), "6", "multiple of 4")
    assert_mistake(train(*shapes, "--batch", "-8"), "batch must be positive, got -8")
    assert_mistake(train(*shapes, "--resume", tmp_path / "no.pkl"), "no such network file or run folder")
    assert_mistake(train(*shapes, "--device", "cuda:77"), "cuda:77")
    picture = folder / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    Image.new("RGB", (16, 16)).save(folder / "b.png")
    assert_mistake(train("--data", folder), "b.png", "16", "32")
    assert_mistake(train(*shapes, "--resume", picture), "a.png")
    assert_mistake(train(*shapes, "--model", "ib_gan"), "'ib_gan' has normal latents", "got 'uniform' latents")
    (folder / "b.png").write_bytes(picture.read_bytes()[:60])
    assert_mistake(train("--data", folder), "b.png")
    assert not outdir.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--unlock-first", "coarsest"), "--unlock-first belongs to --unlock-kimg above 0"),
        (("--z-dim", "6"), "--z-dim belongs to --model ib_gan, got model 'ps_sc'"),
        (("--bottleneck-weight", "1"), "--bottleneck-weight belongs to --model ib_gan, got model 'ps_sc'"),
        (("--model", "gan", "--code-weight", "1"), "--code-weight belongs to --model ps_sc, info_gan, ib_gan"),
        (
            ("--model", "info_gan", "--perturbation", "1"),
            "--perturbation belongs to --model ps_sc or --regularizer vp, got model 'info_gan', regularizer 'none'",
        ),
        (("--model", "gan", "--reader-noise", "0.2"), "--reader-noise belongs to --model ps_sc, info_gan, ib_gan"),
        (("--model", "gan", "--average-recognizer"), "--average-recognizer belongs to --model ps_sc, info_gan, ib_gan"),
        (("--regularizer-weight", "1"), "got regularizer 'none'"),
        (("--distance", "mse"), "--distance belongs to --tpl or --metrics, and neither is given"),
        (("--num-images", "9"), "--num-images belongs to --tpl or --metrics, and neither is given"),
        (("--augment-probability", "0.5"), "--augment-probability belongs to --augment ada, fixed, got augment 'none'"),
        (("--augment", "fixed", "--augment-target", "0.5"), "got augment 'fixed'"),
        (("--augment", "fixed", "--augment-kimg", "5"), "--augment-kimg belongs to --augment ada, got augment 'fixed'"),
    ],
)
def test_options_that_a_training_would_not_look_at_are_refused(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert_mistake(run(*TINY_TRAINING, "--outdir", tmp_path / "runs", *options), message)
    assert not (tmp_path / "runs").exists()


def test_options_of_another_model_are_refused_in_a_resumed_run_too(tmp_path: Path) -> None:
    result = run(*TINY_TRAINING, "--outdir", tmp_path, "--model", "info_gan")
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    assert_mistake(run("train", "--resume", folder, "--kimg", "1", "--perturbation", "1"), "--perturbation belongs to")


def test_what_was_read_is_told_and_sizes_of_no_network_are_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32)).save(tmp_path / "clear.png")
    (tmp_path / "notes.txt").write_text("no picture")
    arguments = ("train", "--preset", "demo", "--dry-run", "--background", "black")
    result = run(*arguments, "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert "note: 1 image, 1 file left out: .txt (1)" in result.output
    assert "note: 1 of 1 image with an alpha channel, shown on black" in result.output
    Image.new("RGB", (100, 100)).save(tmp_path / "clear.png")
    command = f"`sc-layers dataset convert {tmp_path} OUT.zip --crop center --resolution 64`"
    assert_mistake(run(*arguments, "--data", tmp_path), "100x100 pixels, networks need a power of two", command)


def test_an_incomplete_label_file_does_not_stop_a_run(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    (tmp_path / "dataset.json").write_text('{"labels": [["a.png", "cat"]]}')
    result = run("train", "--preset", "demo", "--dry-run", "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert "note: dataset.json is not read: training uses no labels" in result.output
