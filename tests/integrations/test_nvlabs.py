from __future__ import annotations

import copy
import io
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from sc_layers.attach import attach_spatial_constriction, codes_of, constriction_parameters
from sc_layers.integrations import nvlabs
from tests.checkpoints import samples
from tests.integrations.toys import W_DIM, AdaLikeGenerator
from tests.tolerances import SAME_FORMULA

BATCH = 4
OPTIONS = {"sc_codes": 4, "sc_res": [8, 16], "ps_weight": 0.5}


class Loss:
    """Conventions of the code bases' `StyleGAN2Loss`; D is the mean of the image."""

    pl_weight = 1.0

    def __init__(self, G: nn.Module) -> None:
        self.G = G
        self.images: list[Tensor] = []

    def run_G(self, z: Tensor, c: Tensor, sync: bool = True) -> tuple[Tensor, Tensor]:
        ws = self.G.mapping(z, c)
        ws[:, 2:] = self.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)[:, 2:]
        images = self.G.synthesis(ws)
        self.images.append(images.detach())
        return images, ws

    def accumulate_gradients(
        self, phase: str, real_img: Any, real_c: Any, gen_z: Tensor, gen_c: Tensor, gain: float, sync: bool = True
    ) -> None:
        if phase in ("Gmain", "Gboth"):
            images, _ = self.run_G(gen_z, gen_c, sync)
            images.mean().mul(gain).backward()
        if phase in ("Greg", "Gboth"):
            images, ws = self.run_G(gen_z, gen_c, sync)
            (gradient,) = torch.autograd.grad(images.sum(), ws, create_graph=True)
            gradient.square().sum().mul(gain).backward()
        if phase == "Dmain":
            self.run_G(gen_z, gen_c, sync)


class Phase(SimpleNamespace):
    pass


def make(**options: Any) -> tuple[nvlabs.Training, Any, list[tuple[str, Any]]]:
    training = nvlabs.Training(AdaLikeGenerator(), torch.device("cpu"), **(OPTIONS | options))
    reports: list[tuple[str, Any]] = []
    loss = training.wrap_loss(Loss(training.G), lambda name, value: reports.append((name, value)))
    return training, loss, reports


def snapshot(training: nvlabs.Training) -> dict[str, Any]:
    """What a snapshot holds; the sheet of codes goes to a folder that nobody looks at."""
    with tempfile.TemporaryDirectory() as folder:
        return training.snapshot(training.G, folder, 0)


def accumulate(training: nvlabs.Training, loss: Any, phase: str, gain: float = 1.0) -> None:
    trained = [training.G] if training.Q is None else [training.G, training.Q]
    for module in trained:
        module.requires_grad_(True)
    z = torch.randn(BATCH, training.G.z_dim)
    loss.accumulate_gradients(phase=phase, real_img=None, real_c=None, gen_z=z, gen_c=torch.zeros(BATCH, 0), gain=gain)


@pytest.mark.parametrize(
    ("phase", "pays"), [("Gmain", True), ("Gboth", True), ("Greg", False), ("Dmain", False), ("Dreg", False)]
)
def test_only_the_main_phase_of_the_generator_pays(phase: str, pays: bool) -> None:
    training, loss, reports = make()
    passes = []
    training.G.synthesis.register_forward_hook(lambda *_: passes.append(1))
    accumulate(training, loss, phase)
    names = ["Loss/PS/loss", *(f"SC/{what}/{code:02d}" for code in range(4) for what in ("error", "gain"))]
    assert [name for name, _ in reports] == (names if pays else [])
    assert any(parameter.grad is not None for parameter in training.Q.parameters()) == pays
    assert len(passes) == len(loss.loss.images) + pays


def test_both_images_of_a_pair_share_z_mixing_and_noise_and_differ_in_one_code() -> None:
    training, loss, _ = make()
    seen: list[tuple[Tensor, Tensor]] = []
    training.G.synthesis.register_forward_pre_hook(lambda module, args: seen.append(args[0]), prepend=True)
    noises: list[Tensor] = []
    training.G.synthesis.b4.conv1.register_forward_hook(lambda module, args, output: noises.append(output))
    accumulate(training, loss, "Gmain")
    first, second = seen
    assert torch.equal(first[..., :W_DIM], second[..., :W_DIM])
    moved = codes_of(training.G, first) != codes_of(training.G, second)
    assert moved.sum(1).tolist() == [1] * BATCH
    assert torch.equal(*noises)  # b4 lies before the first constriction: equal w and equal noise


class LossOfImages(Loss):
    """As projected-gan's: `run_G` returns images alone."""

    def run_G(self, z: Tensor, c: Tensor, sync: bool = True) -> Tensor:  # type: ignore[override]
        images = self.G.synthesis(self.G.mapping(z, c))
        self.images.append(images.detach())
        return images

    def accumulate_gradients(self, gen_z: Tensor, gen_c: Tensor, **arguments: Any) -> None:  # type: ignore[override]
        self.run_G(gen_z, gen_c).mean().backward()


def test_a_loss_that_makes_images_alone_pays_too() -> None:
    training = nvlabs.Training(AdaLikeGenerator(), torch.device("cpu"), **OPTIONS)
    reports: list[str] = []
    loss = training.wrap_loss(LossOfImages(training.G), lambda name, value: reports.append(name))
    passes = []
    training.G.synthesis.register_forward_hook(lambda *_: passes.append(1))
    accumulate(training, loss, "Gmain")
    assert len(passes) == 2
    assert "Loss/PS/loss" in reports
    assert all(parameter.grad is not None for parameter in training.Q.parameters())


def test_the_pair_moves_the_generator_by_the_gradient_of_its_loss() -> None:
    training, loss, reports = make()
    torch.manual_seed(1)
    accumulate(training, loss, "Gmain", gain=2.0)
    with_pair = [p.grad.clone() for p in training.G.parameters()]

    plain = Loss(training.G)
    training.G.zero_grad()
    torch.manual_seed(1)
    accumulate(training, plain, "Gmain", gain=2.0)
    without = [p.grad for p in training.G.parameters()]
    assert torch.equal(plain.images[0], loss.loss.images[0])
    assert max((a - b).abs().max() for a, b in zip(with_pair, without, strict=True)) > 1e-6
    assert reports[0][1].shape == (BATCH,)


def test_gradients_of_several_rounds_add_up() -> None:
    training, loss, _ = make()
    torch.manual_seed(1)
    accumulate(training, loss, "Gmain")
    accumulate(training, loss, "Gmain")
    together = [p.grad.clone() for p in training.Q.parameters()]
    torch.manual_seed(1)
    parts = []
    for _ in range(2):
        training.Q.zero_grad()
        accumulate(training, loss, "Gmain")
        parts.append([p.grad.clone() for p in training.Q.parameters()])
    expected = [a + b for a, b in zip(*parts, strict=True)]
    torch.testing.assert_close(together, expected, **SAME_FORMULA[torch.float32])


def test_a_failed_phase_leaves_no_pass_behind() -> None:
    training, loss, reports = make()
    with pytest.raises(TypeError):
        loss.accumulate_gradients(phase="Gmain", gain=1.0)
    accumulate(training, loss, "Dmain")
    assert not reports


def phases_of(generator: nn.Module) -> list[Phase]:
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.1, betas=(0.0, 0.9))
    return [
        Phase(name="Gmain", module=generator, opt=optimizer),
        Phase(name="Greg", module=generator, opt=optimizer),
        Phase(name="Dmain", module=None, opt=None),
    ]


def test_the_phases_of_g_train_and_switch_the_recogniser_too() -> None:
    training, loss, _ = make(sc_lr=2.0, q_lr=3.0)
    phases = phases_of(training.G)
    training.join(phases)
    assert [group["lr"] for group in phases[0].opt.param_groups] == pytest.approx([0.1, 0.2, 0.3])
    assert phases[0].opt.param_groups[2]["betas"] == (0.0, 0.9)
    assert phases[0].module is phases[1].module
    assert phases[2].module is None
    phases[0].module.requires_grad_(True)
    assert all(p.requires_grad for p in (*training.G.parameters(), *training.Q.parameters()))
    before = [p.detach().clone() for p in training.Q.parameters()]
    accumulate(training, loss, "Gmain")
    phases[0].opt.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, training.Q.parameters(), strict=True))


def test_a_frozen_generator_keeps_every_bit_while_its_constriction_learns() -> None:
    training, loss, _ = make(sc_freeze_g=True)
    phases = phases_of(training.G)
    training.join(phases)
    added = {id(parameter) for parameter in constriction_parameters(training.G)}
    before = {name: p.detach().clone() for name, p in training.G.named_parameters()}
    accumulate(training, loss, "Gmain")
    phases[0].opt.step()
    moved = {name for name, p in training.G.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert moved <= {name for name, p in training.G.named_parameters() if id(p) in added}


def test_weight_zero_trains_without_recogniser() -> None:
    training, loss, _ = make(ps_weight=0.0)
    assert training.Q is None
    assert isinstance(loss, Loss)
    assert list(snapshot(training)) == ["sc_options"]
    phases = phases_of(training.G)
    training.join(phases)
    assert phases[0].module is training.G


def test_a_snapshot_holds_the_recogniser_and_resuming_takes_it_up() -> None:
    training, _, _ = make()
    saved = {"G": training.G, **snapshot(training)}
    assert not any(p.requires_grad for p in saved["Q"].parameters())
    other, _, _ = make()
    other.resume(saved)
    for a, b in zip(other.Q.parameters(), training.Q.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_sheet_is_drawn_by_one_rank_alone(tmp_path: Path) -> None:
    make()[0].snapshot(make()[0].G, str(tmp_path), 12_345)
    assert [file.name for file in tmp_path.iterdir()] == ["codes000012.png"]
    (tmp_path / "codes000012.png").unlink()
    training, _, _ = make(rank=1)
    training.snapshot(training.G, str(tmp_path), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_recogniser_means_a_fresh_one_and_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    training, _, _ = make()
    before = copy.deepcopy(training.Q.state_dict())
    training.resume({"G": AdaLikeGenerator(), "G_ema": AdaLikeGenerator()})
    assert capsys.readouterr().out == "The pickle has no recogniser: starting with a fresh one.\n"
    assert all(torch.equal(value, before[name]) for name, value in training.Q.state_dict().items())


def test_a_plain_pickle_gets_the_same_constriction_on_weights_and_average_as_the_identity() -> None:
    training, _, _ = make()
    data = {"G": AdaLikeGenerator(), "G_ema": AdaLikeGenerator().eval(), "Q": None}
    z = torch.randn(2, 5)
    before = data["G_ema"](z, noise_mode="const")
    training.resume(data)
    layers = zip(constriction_parameters(data["G"]), constriction_parameters(data["G_ema"]), strict=True)
    assert all(torch.equal(a, b) for a, b in layers)
    assert torch.equal(data["G_ema"](torch.cat([z, torch.randn(2, 4)], 1), noise_mode="const"), before)
    assert set(data["G"].state_dict()) == set(training.G.state_dict())


def test_a_pickle_whose_average_is_the_network_itself_is_attached_once() -> None:
    training, _, _ = make()
    network = AdaLikeGenerator()
    training.resume({"G": network, "G_ema": network, "Q": None})
    assert set(network.state_dict()) == set(training.G.state_dict())


def test_resuming_from_other_layers_than_the_flags_say_is_an_error() -> None:
    training, _, _ = make()
    other = attach_spatial_constriction(AdaLikeGenerator(), 4, [16, 32])
    with pytest.raises(ValueError, match=r"'layers': \['b16', 'b32'\].*leave --sc-codes"):
        training.resume({"G": other, "Q": None})


def test_a_constricted_pickle_in_a_run_without_constriction_is_refused_with_the_flags_to_give() -> None:
    attached = attach_spatial_constriction(AdaLikeGenerator(), 4, [16, 32])
    with pytest.raises(ValueError, match=r"--sc-codes=4, --sc-res with the resolutions of b16, b32 and --sc-rects=4"):
        nvlabs.resume(None, {"G": attached})
    nvlabs.resume(None, {"G": AdaLikeGenerator()})


@pytest.fixture
def dnnlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code bases' helper library does for us."""

    def construct(class_name: str, c_dim: int, img_resolution: int, img_channels: int) -> AdaLikeGenerator:
        assert class_name == "training.networks.Generator"
        return AdaLikeGenerator(img_resolution, c_dim)

    util = SimpleNamespace(open_url=lambda path: io.BytesIO(Path(path).read_bytes()), construct_class_by_name=construct)
    monkeypatch.setitem(sys.modules, "dnnlib", SimpleNamespace(util=util))


def arguments(**more: Any) -> dict[str, Any]:
    return {
        "G_opt_kwargs": {"betas": [0, 0.99]},
        "D_opt_kwargs": {"betas": [0, 0.99]},
        "G_kwargs": {"class_name": "training.networks.Generator"},
        "training_set_kwargs": {"resolution": 32},
        "metrics": [],
        **more,
    }


def write_pickle(path: Path, content: dict[str, Any]) -> str:
    path.write_bytes(samples.pickled(content))
    return str(path)


@pytest.mark.usefixtures("dnnlib")
def test_configure_fills_in_the_training_loops_arguments(tmp_path: Path) -> None:
    plain = write_pickle(tmp_path / "plain.pkl", {"G": AdaLikeGenerator(), "G_ema": AdaLikeGenerator()})
    loop = arguments(resume_pkl=plain)
    assert nvlabs.configure(loop, {"sc_codes": 6, "sc_res": "8,16", "batch": 3}) == "-sc6"
    assert loop["sc_kwargs"] == {"sc_codes": 6, "sc_res": [8, 16]}


@pytest.mark.usefixtures("dnnlib")
def test_a_resumed_pickle_tells_its_constriction_and_settings_without_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, _, _ = make(sc_codes=3, ps_eps=1.5)
    path = write_pickle(tmp_path / "constricted.pkl", {"G": training.G, **snapshot(training)})
    loop = arguments(resume_pkl=path)
    assert nvlabs.configure(loop, {"q_lr": 2.0}) == "-sc3"
    assert capsys.readouterr().out == ("Going on with the spatial constriction of the checkpoint: 3 codes in b8, b16\n")
    resumed = nvlabs.Training(AdaLikeGenerator(), torch.device("cpu"), **loop["sc_kwargs"])
    assert (resumed.options.ps_eps, resumed.options.ps_weight, resumed.options.q_lr) == (1.5, 0.5, 2.0)
    resumed.resume({"G": training.G, "G_ema": training.G, **snapshot(training)})
    assert all(map(torch.equal, resumed.Q.state_dict().values(), training.Q.state_dict().values()))


@pytest.mark.usefixtures("dnnlib")
def test_a_pickle_that_was_trained_without_recogniser_goes_on_without(tmp_path: Path) -> None:
    training, _, _ = make(ps_weight=0.0)
    loop = arguments(resume_pkl=write_pickle(tmp_path / "constricted.pkl", {"G": training.G}))
    nvlabs.configure(loop, {})
    assert loop["sc_kwargs"]["ps_weight"] == 0


@pytest.mark.usefixtures("dnnlib")
def test_a_generator_that_takes_other_arguments_is_refused_by_name() -> None:
    foreign = arguments(G_kwargs={"class_name": "training.networks.Generator", "NoiseDimension": 64})
    with pytest.raises(click.UsageError, match=r"training.networks.Generator is not made as .*NoiseDimension"):
        nvlabs.configure(foreign, {"sc_codes": 4, "sc_res": "16"})


@pytest.mark.usefixtures("dnnlib")
def test_resolutions_that_do_not_exist_are_usage_errors_before_anything_is_written() -> None:
    with pytest.raises(click.UsageError, match="no resolution 64 can be constricted here; there are 4, 8, 16, 32"):
        nvlabs.configure(arguments(), {"sc_codes": 4, "sc_res": "16,64"})


def test_a_generator_whose_parts_are_methods_is_refused_by_name() -> None:
    class Planes(nn.Module):
        """As in eg3d, `synthesis` is a method here."""

        def __init__(self) -> None:
            super().__init__()
            self.mapping = nn.Linear(2, 2)

        def synthesis(self, ws: Tensor) -> Tensor:
            return ws

    generator = Planes()
    with pytest.raises(ValueError, match="Planes has no module synthesis, which this training needs"):
        nvlabs.Training(generator, torch.device("cpu"), sc_codes=2, sc_res=[8])


def test_configure_without_flags_changes_nothing_but_integer_betas() -> None:
    loop = arguments()
    assert nvlabs.configure(loop, {"sc_codes": None}) == ""
    assert loop == arguments(G_opt_kwargs={"betas": [0.0, 0.99]}, D_opt_kwargs={"betas": [0.0, 0.99]})
    torch.optim.Adam([nn.Parameter(torch.zeros(1))], **loop["G_opt_kwargs"])


def test_tpl_without_codes_is_refused_before_the_training_starts() -> None:
    with pytest.raises(click.UsageError, match="tpl_small measures codes: give --sc-codes"):
        nvlabs.configure(arguments(metrics=["fid50k", "tpl_small"]), {})


def test_contradicting_flags_are_usage_errors() -> None:
    with pytest.raises(click.UsageError, match="needs --sc-codes"):
        nvlabs.configure(arguments(), {"ps_eps": 1.0})


def test_traversal_length_of_a_conditional_network_is_averaged_over_labels_of_real_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dataset(list[int]):
        def get_label(self, index: int) -> np.ndarray[Any, Any]:
            return np.eye(3, dtype=np.float32)[1 + index % 2]

    util = SimpleNamespace(construct_class_by_name=lambda length: Dataset(range(length)))
    monkeypatch.setitem(sys.modules, "dnnlib", SimpleNamespace(util=util))
    options = SimpleNamespace(G=SimpleNamespace(c_dim=3), dataset_kwargs={"length": 50})
    labels = nvlabs.real_labels(options)
    assert len(labels) == 4
    assert all(label.shape == (1, 3) and label[0, 0] == 0 and label.sum() == 1 for label in labels)
    assert nvlabs.real_labels(SimpleNamespace(G=SimpleNamespace(c_dim=0))) == [None]
    seen: list[Any] = []
    monkeypatch.setattr(
        "sc_layers.metrics.traversal_length.traversal_perceptual_length",
        lambda view, *_, **__: seen.append(view.c) or SimpleNamespace(total=float(len(seen)), num_active=2),
    )
    options.G, options.rank, options.device = AdaLikeGenerator(c_dim=3), 0, torch.device("cpu")
    attach_spatial_constriction(options.G, 2, [8])
    functions: list[Any] = []
    nvlabs.register_metrics(functions.append)
    assert functions[0](options) == {"tpl_small": 2.5, "tpl_small_active": 2.0}
    assert all(map(torch.equal, seen, labels))


def test_the_flags_appear_in_the_command() -> None:
    @click.command()
    @nvlabs.train_options
    def command(**values: Any) -> None:
        click.echo(values["sc_codes"])
        click.echo(values["ps_eps"])

    result = CliRunner().invoke(command, ["--sc-codes=6"])
    assert result.output == "6\n\n"


def test_metrics_are_registered_under_the_names_of_their_functions() -> None:
    functions: list[Any] = []
    nvlabs.register_metrics(functions.append)
    assert [function.__name__ for function in functions] == ["tpl_small", "tpl_large"]
    others = functions[0](SimpleNamespace(rank=1))
    assert set(others) == {"tpl_small", "tpl_small_active"}
