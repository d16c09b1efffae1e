"""`--code`: commands on files of other programs, with a folder that serves as the user's checkout."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from sc_layers.attach import AttachedGenerator, attach_spatial_constriction, attachment_of, draw_latent
from sc_layers.checkpoints import load_network
from sc_layers.checkpoints.opening import open_generator, open_networks
from sc_layers.cli import main
from sc_layers.images import to_uint8
from sc_layers.metrics.registry import Networks
from sc_layers.metrics.traversal_length import traversal_perceptual_length
from sc_layers.pictures.explorer.scene import Scene, View
from tests.checkpoints import samples
from tests.integrations import toys

K = 4
MODULES = ("training", "training.networks", "training.networks_stylegan2", "training.networks_stylegan3", "model")


@pytest.fixture(autouse=True)
def fresh_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command is a process of its own, which has imported no checkout yet."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def attached(resolution: int = 16, c_dim: int = 0, seed: int = 0) -> toys.AdaLikeGenerator:
    torch.manual_seed(seed)
    generator = toys.AdaLikeGenerator(resolution, c_dim).eval().requires_grad_(False)
    generator.mapping.w_avg += 0.5
    return attach_spatial_constriction(generator, K, [8, 16], init="random")


def write_pickle(path: Path, generator: torch.nn.Module) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(samples.pickled({"G": generator, "G_ema": generator}))
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Laid out as stylegan2-ada-pytorch."""
    return make_checkout(tmp_path / "ada", "training/networks.py", "AdaLikeGenerator")


def make_checkout(folder: Path, file: str, classes: str) -> Path:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(f"from tests.integrations.toys import {classes}\n")
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_pickle(tmp_path / "run" / "network-snapshot-000000.pkl", attached())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(PIL.Image.open(path))).permute(2, 0, 1)


def of_seed(generator: toys.AdaLikeGenerator, seed: int) -> Tensor:
    """z as the code base's `generate.py` draws it."""
    return torch.from_numpy(np.random.RandomState(seed).randn(1, generator.z_dim)).float()


def test_generate_draws_the_pictures_of_the_code_base(network: Path, checkout: Path, tmp_path: Path) -> None:
    arguments = ["--code", checkout, "--seeds", "3,5", "--truncation", 0.7, "--outdir", tmp_path / "out"]
    result = run("generate", network.parent, *arguments)
    assert result.exit_code == 0, result.output
    generator = attached()
    for seed in (3, 5):
        image = generator(of_seed(generator, seed), None, truncation_psi=0.7, noise_mode="const")
        assert torch.equal(pixels(tmp_path / "out" / f"seed000{seed}.png"), to_uint8(image[0]))


def test_traverse_sweeps_around_the_z_of_the_seed(network: Path, checkout: Path, tmp_path: Path) -> None:
    arguments = ["--code", checkout, "--seeds", 3, "--points", 3, "--range", 1, "--truncation", 0.7]
    result = run("traverse", network, *arguments, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    picture = pixels(tmp_path / "traverse0003.png")
    generator = attached()
    z = of_seed(generator, 3)
    z[:, -K + 2] = 1.0  # the last point of the third row
    image = to_uint8(generator(z, None, truncation_psi=0.7, noise_mode="const")[0])
    drawn = image.repeat_interleave(5, 1).repeat_interleave(5, 2)  # to 80 pixels
    corners = (picture == drawn[:, :1, :1]).all(0).nonzero().tolist()
    assert sum(torch.equal(picture[:, y : y + 80, x : x + 80], drawn) for y, x in corners) == 1
    assert (tmp_path / "traverse0003.gif").stat().st_size > 0


def test_tpl_is_that_of_the_attached_generator(network: Path, checkout: Path) -> None:
    result = run("metrics", network, "--code", checkout, "--metrics", "tpl_small_0.3", "--distance", "mse", "--json")
    assert result.exit_code == 0, result.output
    expected = traversal_perceptual_length(AttachedGenerator(attached()), distance="mse")
    assert json.loads(result.output)["results"]["per_dim"] == pytest.approx(expected.per_dim.tolist(), rel=1e-4)


def test_path_length_draws_z_as_well_as_codes(network: Path, checkout: Path) -> None:
    with pytest.raises(ValueError, match="open it by open_networks"):
        Networks.of(load_network(network))
    networks = Networks.of(open_networks(network, checkout))
    assert networks.sampler.num_codes == 5 + K
    z = torch.randn(2, 5 + K)
    generator = attached()
    images = generator(z, None, noise_mode="const")
    assert torch.equal(networks.sampler(z, noise_mode="const"), images)
    torch.manual_seed(0)
    noisy = networks.sampler(z)
    torch.manual_seed(0)
    assert torch.equal(noisy, generator(z, None, noise_mode="random"))
    pytest.importorskip("torchmetrics")
    arguments = ["--metrics", "ppl", "--distance", "mse", "--effort", 0.001]
    assert run("metrics", network, "--code", checkout, *arguments).exit_code == 0


def test_rotation_and_select_take_it_too(network: Path, checkout: Path, tmp_path: Path) -> None:
    settings = ["--code", checkout, "--distance", "mse"]
    out = tmp_path / "curve.png"
    result = run("metrics", "rotation", network, "--codes", "0,3", "--points", 3, "--step", 90, *settings, "--out", out)
    assert result.exit_code == 0, result.output
    write_pickle(network.with_name("network-snapshot-000001.pkl"), attached(seed=1))
    result = run("select", network.parent, "--all-snapshots", *settings)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["1", "2"]


def test_a_conditional_generator_needs_a_class(checkout: Path, tmp_path: Path) -> None:
    generator = attached(c_dim=3)
    path = write_pickle(tmp_path / "conditional.pkl", generator)
    missing = run("traverse", path, "--code", checkout)
    assert missing.exit_code == 2
    assert "conditional generator: give --class, from 0 to 2" in missing.output
    assert "classes 0 to 2, got class 3" in run("traverse", path, "--code", checkout, "--class", 3).output
    arguments = ["--code", checkout, "--class", 2, "--seeds", 0, "--outdir", tmp_path]
    assert run("generate", path, *arguments).exit_code == 0
    image = generator(of_seed(generator, 0), torch.eye(3)[2:], noise_mode="const")
    assert torch.equal(pixels(tmp_path / "seed0000.png"), to_uint8(image[0]))


def test_a_class_of_a_generator_without_classes_is_refused(network: Path, checkout: Path) -> None:
    assert "no classes, got class 1" in run("generate", network, "--code", checkout, "--class", 1).output


def test_layers_with_margins_come_from_the_module_of_stylegan3(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = attach_spatial_constriction(
        toys.MarginGenerator().eval().requires_grad_(False), K, [8, 16], init="random"
    )
    generator._init_kwargs = {"spatial_constriction": generator._init_kwargs["spatial_constriction"]}
    path = write_pickle(tmp_path / "margin.pkl", generator)
    checkout = make_checkout(tmp_path / "sg3", "training/networks_stylegan3.py", "MarginGenerator")
    make_checkout(checkout, "training/networks_stylegan2.py", "AdaLikeGenerator")
    result = run("traverse", path, "--code", checkout, "--points", 2, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    with PIL.Image.open(tmp_path / "traverse0000.gif") as gif:
        assert gif.size == (K * 16, 2 * 16)  # above the masks


ROSINALITY = """
from tests.integrations.toys import RosinalityLikeGenerator

class Generator(RosinalityLikeGenerator):
    def __init__(self, size, style_dim, n_mlp, channel_multiplier):
        super().__init__()
"""


def test_a_checkpoint_of_rosinality(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = attach_spatial_constriction(toys.RosinalityLikeGenerator().eval(), K, [4, 8], init="random")
    content = {"g_ema": generator.state_dict(), "sc": attachment_of(generator).arguments()}
    (tmp_path / "000000.pt").write_bytes(samples.saved(content))
    (tmp_path / "model.py").write_text(ROSINALITY)
    arguments = ["--code", tmp_path, "--seeds", 0, "--outdir", tmp_path]
    result = run("generate", tmp_path / "000000.pt", *arguments)
    assert result.exit_code == 0, result.output
    with torch.no_grad():
        image = generator([draw_latent(generator, 0)], randomize_noise=False)[0]
    assert torch.equal(pixels(tmp_path / "seed0000.png"), to_uint8(image[0]))
    result = run("metrics", tmp_path / "000000.pt", "--code", tmp_path, "--distance", "mse")
    assert result.exit_code == 0, result.output


def refused(*arguments: Any) -> str:
    result = run("traverse", *arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert len(result.output.splitlines()) == 1
    return result.output


def test_what_is_wrong_is_said_in_one_line(network: Path, checkout: Path, tmp_path: Path) -> None:
    assert "another program: give --code DIR, your checkout" in refused(network)
    assert "is none" in refused(network, "--code", tmp_path / "absent")
    assert "is no checkout of a known code base" in refused(network, "--code", tmp_path)
    (tmp_path / "model.py").touch()
    assert "have no tensors such as synthesis" in refused(network, "--code", tmp_path)
    plain = write_pickle(tmp_path / "plain.pkl", toys.AdaLikeGenerator(16))
    assert "without spatial constriction" in refused(plain, "--code", checkout)
    assert "trained with --latents normal" in refused(network, "--code", checkout, "--latents", "uniform")


def test_code_that_does_not_import_is_named(network: Path, checkout: Path) -> None:
    (checkout / "training" / "networks.py").write_text("import nothing_of_that_name\n")
    message = refused(network, "--code", checkout)
    assert "importing training.networks" in message
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in message


def test_modules_of_another_checkout_are_not_mistaken_for_it(network: Path, checkout: Path, tmp_path: Path) -> None:
    assert run("traverse", network, "--code", checkout, "--outdir", tmp_path).exit_code == 0
    other = make_checkout(tmp_path / "other", "training/networks.py", "AdaLikeGenerator")
    assert "is loaded already" in refused(network, "--code", other)


def test_pictures_that_are_not_finite_are_refused(checkout: Path, tmp_path: Path) -> None:
    generator = attached()
    generator.state_dict()["mapping.w_avg"][0] = float("nan")
    path = write_pickle(tmp_path / "broken.pkl", generator)
    for command in ("generate", "traverse"):
        result = run(command, path, "--code", checkout, "--truncation", 0.7, "--outdir", tmp_path)
        assert result.exit_code == 2
        assert "values that are not finite" in result.output


def test_the_explorer_draws_what_its_command_writes(network: Path, checkout: Path, tmp_path: Path) -> None:
    scene = Scene(open_generator(network, checkout), options=("--code", str(checkout)))
    asked = {"seed": 5, "truncation": 0.7, "values": {"2": -1.5}, "sight": "image", "code": 2}
    picture = scene.draw(View.read(asked, K))
    _, *words = shlex.split(picture.command)
    assert run(*words, "--outdir", tmp_path / "out").exit_code == 0
    drawn = np.array(PIL.Image.open(io.BytesIO(picture.image)))
    assert torch.equal(pixels(tmp_path / "out" / "seed0005.png"), torch.from_numpy(drawn).permute(2, 0, 1))
    assert sorted(picture.masks) == list(range(K))
    with pytest.raises(ValueError, match=r"no names are kept in .*network-snapshot-000000\.pkl"):
        scene.rename(2, "smile")
