from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sc_layers import attach_spatial_constriction
from sc_layers.attach import (
    AttachedGenerator,
    attach_like,
    attachment_of,
    codes_of,
    constriction_layers,
    constriction_parameters,
    detach_spatial_constriction,
    images_and_masks,
    masks_of,
    num_codes,
    spread,
    traverse,
    widen,
    with_codes,
)
from tests.integrations.toys import W_DIM, AdaLikeGenerator, MarginGenerator, RosinalityLikeGenerator, StyledLayer

K = 4


def attached(init: str = "random", **options: Any) -> AdaLikeGenerator:
    settings = {"resolutions": [8, 16], "init": init} | options
    return attach_spatial_constriction(AdaLikeGenerator().eval(), K, **settings)


def wide_z(batch: int = 2) -> Tensor:
    return torch.randn(batch, 5 + K)


def run(generator: nn.Module, z: Tensor, **options: Any) -> Tensor:
    return generator(z, None, noise_mode="const", **options)


TOYS = [
    (AdaLikeGenerator, 5, {"noise_mode": "const"}),
    (MarginGenerator, 5, {"noise_mode": "const"}),
    (RosinalityLikeGenerator, W_DIM, {"randomize_noise": False}),
]


@pytest.mark.parametrize("row", [0, 1], ids=["aligned", "not_aligned"])
@pytest.mark.parametrize(("make", "width", "options"), TOYS, ids=[make.__name__ for make, *_ in TOYS])
def test_a_single_image_is_bit_equal_attached_and_detached(
    make: Any, width: int, options: dict[str, Any], row: int
) -> None:
    generator = make().eval()
    wide = torch.randn(2, width + 3)[row : row + 1]

    def images(z: Tensor) -> Tensor:
        made = generator([z] if make is RosinalityLikeGenerator else z, **options)
        return made[0] if isinstance(made, tuple) else made

    narrow = wide[:, :width].clone()
    before = images(narrow)
    attach_spatial_constriction(generator, 3, [8, 16])
    assert torch.equal(images(wide), before)
    detach_spatial_constriction(generator)
    assert torch.equal(images(narrow), before)


def test_identity_init_keeps_the_images_bit_for_bit() -> None:
    generator = AdaLikeGenerator().eval()
    z = wide_z()
    before = run(generator, z[:, :5].contiguous())
    attach_spatial_constriction(generator, K, [8, 16])
    assert torch.equal(run(generator, z), before)


def test_identity_init_learns_from_the_first_step() -> None:
    generator = attached("identity")
    z = wide_z()
    before = run(generator, z).detach()
    run(generator, z).square().sum().backward()
    with torch.no_grad():
        for parameter in constriction_parameters(generator):
            parameter -= 0.1 * parameter.grad
    assert (run(generator, z) - before).abs().max() > 1e-3


def test_random_init_lets_every_code_act() -> None:
    generator = attached()
    z = wide_z(1)
    for code in range(K):
        moved = z.clone()
        moved[:, 5 + code] += 2
        assert (run(generator, moved) - run(generator, z)).abs().max() > 1e-4, f"code {code}"


def test_z_and_w_grow_by_the_codes() -> None:
    generator = attached()
    ws = generator.mapping(wide_z(), None)
    assert (generator.z_dim, generator.w_dim, ws.shape[2]) == (5 + K, W_DIM + K, W_DIM + K)


def test_old_widths_stand_for_codes_zero() -> None:
    generator = attached()
    z = wide_z()
    z[:, 5:] = 0
    assert torch.equal(run(generator, z[:, :5].contiguous()), run(generator, z))
    ws = generator.mapping(z, None)
    assert torch.equal(
        generator.synthesis(ws[..., :W_DIM], noise_mode="const"), generator.synthesis(ws, noise_mode="const")
    )


@pytest.mark.parametrize("part", ["mapping", "synthesis"])
def test_any_other_width_is_an_error_that_names_both(part: str) -> None:
    generator = attached()
    with pytest.raises(ValueError, match=r"must have \d+ entries \(\d+ and 4 codes\), or \d+ for codes 0"):
        generator.mapping(torch.randn(2, 6), None) if part == "mapping" else generator.synthesis(torch.randn(2, 8, 8))


def test_every_layer_reads_the_codes_in_its_own_row_of_w() -> None:
    generator = attached()
    ws = generator.mapping(wide_z(), None)
    image = generator.synthesis(ws, noise_mode="const")
    for row in range(generator.num_ws):
        mixed = ws.clone()
        mixed[:, row, W_DIM:] += 1
        moved = [(k, row) for k, own in enumerate((2, 2, 4, 4)) if own == row]  # conv1 of b8 and of b16
        assert torch.equal(generator.synthesis(mixed, noise_mode="const"), image) == (not moved)
        change = (codes_of(generator, mixed) - ws[:, 0, W_DIM:]).ne(0)
        assert change.any(0).nonzero().flatten().tolist() == [k for k, _ in moved]


def test_style_mixing_mixes_the_codes_of_the_mixed_layers() -> None:
    generator = attached()
    first, second = generator.mapping(wide_z(), None)[:, None]
    mixed = torch.cat([first[:, :3], second[:, 3:]], dim=1)
    assert torch.equal(codes_of(generator, mixed)[:, :2], first[:, 0, W_DIM : W_DIM + 2])
    assert torch.equal(codes_of(generator, mixed)[:, 2:], second[:, 0, W_DIM + 2 :])


def test_foreign_arithmetic_finds_an_average_of_w_as_wide_as_w() -> None:
    generator = attached()
    generator.mapping.w_avg = torch.randn(W_DIM)
    ws = generator.mapping(wide_z(), None)
    average = generator.mapping.w_avg
    truncated = average + (ws - average) * 0.5
    narrow = generator.mapping(wide_z()[:, :5].contiguous() * 0 + 1, None, truncation_psi=0.5)
    assert truncated.shape == narrow.shape == ws.shape
    assert torch.equal(codes_of(generator, truncated), 0.5 * codes_of(generator, ws))
    assert generator.state_dict()["mapping.w_avg"].shape == (W_DIM,)
    generator.mapping.w_avg += 1
    torch.testing.assert_close(generator.mapping.w_avg[:W_DIM], average[:W_DIM] + 1)


def test_the_average_of_w_is_tracked_in_training_as_before() -> None:
    generator, plain = AdaLikeGenerator().train(), AdaLikeGenerator().train()
    plain.load_state_dict(generator.state_dict())
    attach_spatial_constriction(generator, K, [8, 16])
    z = wide_z()
    generator.mapping(z, None)
    plain.mapping(z[:, :5].contiguous(), None)
    assert torch.equal(generator.state_dict()["mapping.w_avg"], plain.mapping.w_avg)
    generator.eval().mapping(z, None)
    assert torch.equal(generator.state_dict()["mapping.w_avg"], plain.mapping.w_avg)


def test_blocks_can_be_checkpointed_one_by_one() -> None:
    generator = attached().train()
    z = wide_z()
    run(generator, z).square().sum().backward()
    expected = [p.grad.clone() for p in generator.parameters() if p.grad is not None]
    generator.zero_grad()
    for size in (8, 16):
        block = generator.synthesis.get_submodule(f"b{size}")
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    run(generator, z).square().sum().backward()
    torch.testing.assert_close([p.grad for p in generator.parameters() if p.grad is not None], expected)


def test_threads_do_not_share_codes() -> None:
    generator = attached()
    zs = [wide_z() for _ in range(8)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [run(generator, z) for z in zs]
        for _ in range(5):
            assert all(map(torch.equal, pool.map(lambda z: run(generator, z), zs), expected))


def test_masks_are_those_of_the_thread_that_asks() -> None:
    generator = attached()
    ws = [generator.mapping(wide_z(), None) for _ in range(8)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [masks_of(generator, w) for w in ws]
        assert all(map(torch.equal, pool.map(lambda w: masks_of(generator, w), ws), expected))


def test_weights_can_be_given_by_functional_call() -> None:
    generator = attached()
    weights = {name: value * 1.1 for name, value in generator.state_dict().items()}
    twin = copy.deepcopy(generator)
    twin.load_state_dict(weights)
    z = wide_z()
    options = {"c": None, "noise_mode": "const"}
    assert torch.equal(torch.func.functional_call(generator, weights, (z,), options), run(twin, z))


class ConstNoise(nn.Module):
    """An attached generator as a function of z alone."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z, None, noise_mode="const")


def test_an_attached_generator_compiles_to_one_graph_and_exports() -> None:
    generator = attached()
    z = wide_z()
    expected = run(generator, z)
    torch._dynamo.reset()
    compiled = torch.compile(ConstNoise(generator), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), expected)
    program = torch.export.export(ConstNoise(generator), (z,))
    torch.testing.assert_close(program.module()(z), expected)


@pytest.mark.slow
def test_an_attached_generator_is_exported_to_onnx_by_the_reference() -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript")
    generator = attached()
    with pytest.warns(UserWarning, match="exporting to ONNX, which does not know the fused operator"):
        program = torch.onnx.export(ConstNoise(generator), (wide_z(),), dynamo=True, verbose=False)
    assert program is not None
    assert not [node for node in program.model_proto.graph.node if "sc_layers" in node.domain]


def test_a_compiled_generator_in_training_mode_learns_as_the_eager_one() -> None:
    generator = attached().train()
    z = wide_z()
    run(generator, z).square().sum().backward()
    expected = [p.grad.clone() for p in constriction_parameters(generator)]
    generator.zero_grad()
    torch._dynamo.reset()
    torch.compile(ConstNoise(generator), fullgraph=True, backend="aot_eager")(z).square().sum().backward()
    torch.testing.assert_close([p.grad for p in constriction_parameters(generator)], expected)


def test_codes_are_never_truncated() -> None:
    generator = attached()
    z = wide_z()
    ws = generator.mapping(z, None, truncation_psi=0.3)
    assert torch.equal(codes_of(generator, ws), z[:, 5:])
    assert not torch.allclose(ws[..., :W_DIM], generator.mapping(z, None)[..., :W_DIM])


def test_classes_pass_through() -> None:
    generator = AdaLikeGenerator(c_dim=3).eval()
    z, c = wide_z(), torch.eye(3)[:2]
    before = generator(z[:, :5].contiguous(), c, noise_mode="const")
    attach_spatial_constriction(generator, K, [8, 16])
    assert torch.equal(generator(z, c, noise_mode="const"), before)


def test_keyword_arguments_work() -> None:
    generator = attached()
    z = wide_z()
    ws = generator.mapping(z=z, c=None)
    assert torch.equal(generator.synthesis(ws=ws, noise_mode="const"), run(generator, z))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_make_the_same_images_and_share_nothing(duplicate: Any) -> None:
    generator = attached()
    twin = duplicate(generator)
    z = wide_z()
    assert torch.equal(run(twin, z), run(generator, z))
    with torch.no_grad():
        for parameter in constriction_parameters(twin):
            parameter.zero_()
    assert not torch.equal(run(twin, z), run(generator, z))


def test_unpickling_in_a_fresh_process_survives_hooks_registered_there(tmp_path: Any) -> None:
    generator = attached()
    z = wide_z()
    torch.save([z, run(generator, z).detach()], tmp_path / "images.pt")
    (tmp_path / "generator.pkl").write_bytes(pickle.dumps(generator))
    # Hooks are numbered from 0 in a new process: registering some on every module must not displace ours.
    script = (
        "import pickle, sys, torch\n"
        "generator = pickle.load(open(sys.argv[1] + '/generator.pkl', 'rb'))\n"
        "z, elsewhere = torch.load(sys.argv[1] + '/images.pt')\n"
        "images = generator(z, None, noise_mode='const')\n"
        "torch.testing.assert_close(images, elsewhere)\n"
        "hooks = [m.register_forward_hook(lambda *_: None) for _ in range(9) for m in generator.modules()]\n"
        "hooks += [m.register_forward_pre_hook(lambda *_: None) for _ in range(9) for m in generator.modules()]\n"
        "assert torch.equal(generator(z, None, noise_mode='const'), images)\n"
        "[hook.remove() for hook in hooks]\n"
        "assert torch.equal(generator(z, None, noise_mode='const'), images)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_layer_of_a_known_code_base_runs_alone() -> None:
    layer = attached().synthesis.b8.conv1
    x, row = torch.randn(1, 6, 8, 8), torch.randn(1, W_DIM + K)
    expected = layer.constriction(StyledLayer.forward(layer, x, row, "const"), row[:, W_DIM : W_DIM + 2])
    assert torch.equal(layer(x, row, noise_mode="const"), expected)


@pytest.mark.parametrize("make", [AdaLikeGenerator, MarginGenerator, RosinalityLikeGenerator])
def test_detaching_restores_everything(make: Any) -> None:
    generator = make().eval()

    def settings(module: nn.Module) -> dict[str, Any]:
        plain = {key: value for key, value in vars(module).items() if not key.startswith(("_para", "_buff", "_modul"))}
        return copy.deepcopy(plain)

    before = {name: settings(module) for name, module in generator.named_modules()}
    weights = {name: value.clone() for name, value in generator.state_dict().items()}
    attach_spatial_constriction(generator, 2, [8], init="random")
    detach_spatial_constriction(generator)
    after = {name: settings(module) for name, module in generator.named_modules()}
    assert str(after) == str(before)
    assert list(generator.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in generator.state_dict().items())


def test_arguments_of_a_persistent_class_tell_that_constriction_is_attached() -> None:
    generator = attached()
    arguments = dict(generator._init_kwargs)
    with pytest.raises(TypeError, match="spatial_constriction"):
        AdaLikeGenerator(**arguments)
    recorded = arguments.pop("spatial_constriction")
    twin = attach_spatial_constriction(AdaLikeGenerator(**arguments), **recorded)
    twin.load_state_dict(generator.state_dict())
    z = wide_z()
    assert torch.equal(run(twin.eval(), z), run(generator, z))


def test_attach_like_copies_the_structure_and_ignores_plain_networks() -> None:
    twin = AdaLikeGenerator()
    attach_like(twin, attached())
    assert attachment_of(twin).arguments() == attachment_of(attached()).arguments()
    plain = AdaLikeGenerator()
    attach_like(plain, AdaLikeGenerator())
    assert not hasattr(plain, "spatial_constriction")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0, "resolutions": [8]}, "must be positive, got 0"),
        ({"num_codes": 2, "resolutions": [64]}, "no resolution 64 can be constricted here; there are 4, 8, 16, 32"),
        ({"num_codes": 2, "resolutions": [8, 8]}, "once"),
        ({"num_codes": 2, "resolutions": []}, "at least one"),
        ({"num_codes": 2, "layers": ["b7"]}, "no layer 'b7' can be constricted here; there are b4, b8, b16, b32"),
        ({"num_codes": 2, "resolutions": [8], "init": "zero"}, "init must be one of identity, random"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    generator = AdaLikeGenerator()
    with pytest.raises(ValueError, match=message):
        attach_spatial_constriction(generator, **options)
    assert not hasattr(generator, "spatial_constriction")


@given(st.integers(1, 40), st.integers(1, 12))
def test_any_number_of_codes_is_spread_evenly_coarse_to_fine(codes: int, layers: int) -> None:
    sizes = spread(codes, layers)
    assert sum(sizes) == codes
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("codes", "sizes"), [(1, [1]), (2, [1, 1]), (4, [2, 1, 1]), (7, [3, 2, 2])])
def test_codes_fill_the_layers_coarse_to_fine_and_empty_layers_are_left_out(codes: int, sizes: list[int]) -> None:
    generator = attach_spatial_constriction(AdaLikeGenerator(), codes, [32, 8, 16])
    assert [layer.num_codes for layer in constriction_layers(generator)] == sizes
    assert attachment_of(generator).layers == ("b8", "b16", "b32")[: len(sizes)]
    assert num_codes(generator) == codes


def test_attaching_twice_and_detaching_nothing_are_errors() -> None:
    with pytest.raises(ValueError, match="already"):
        attach_spatial_constriction(attached(), 2, [8])
    with pytest.raises(ValueError, match="has no spatial constriction"):
        detach_spatial_constriction(AdaLikeGenerator())


def test_an_unknown_module_gets_a_list_of_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"Linear is no generator of a known code base.*stylegan2-ada.*lucidrains"):
        attach_spatial_constriction(nn.Linear(2, 2), 2)


def _path_length_gradient(generator: AdaLikeGenerator, z: Tensor) -> Tensor:
    ws = generator.mapping(z, None)
    images = generator.synthesis(ws, noise_mode="const")
    (gradient,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), ws, create_graph=True)
    return gradient


def test_path_length_regularisation_reaches_the_constriction_by_double_backward() -> None:
    generator = attached().train()
    gradient = _path_length_gradient(generator, wide_z())
    gradient.square().sum(2).mean(1).sqrt().sum().backward()
    touched = [p.grad for p in constriction_parameters(generator) if p.grad is not None]
    assert touched
    assert all(g.isfinite().all() for g in touched)
    assert max(g.abs().max() for g in touched) > 0


@pytest.mark.parametrize(
    ("option", "training", "reached"), [(False, True, False), (True, True, True), (False, False, True)]
)
def test_path_length_leaves_the_codes_out_in_training_unless_told(option: bool, training: bool, reached: bool) -> None:
    generator = attached(codes_in_path_length=option).train(training)
    gradient = _path_length_gradient(generator, wide_z())
    assert (gradient[:, 2, W_DIM:].abs().max() > 0) == reached  # the row of b8's conv1
    assert gradient[..., :W_DIM].abs().max() > 0


def test_masks_have_the_size_of_the_image_and_depend_on_the_weights() -> None:
    generator = attached()
    images, masks = images_and_masks(generator, generator.mapping(wide_z(), None))
    assert masks.shape == (2, K, *images.shape[2:])
    (gradient,) = torch.autograd.grad(masks.sum(), generator.synthesis.b8.conv1.constriction.gate_weight_h)
    assert gradient.abs().max() > 0


def test_masks_of_layers_with_a_margin_are_cropped_to_the_picture() -> None:
    generator = attach_spatial_constriction(MarginGenerator().eval(), 2, [8], init="random")
    layer = generator.synthesis.L1_12_6.constriction
    features = []
    layer.register_forward_hook(lambda module, args, output: features.append(args[0]))
    masks = masks_of(generator, generator.mapping(torch.randn(1, 7), None))
    expected = nn.functional.interpolate(layer.masks(features[0])[..., 2:-2, 2:-2], (16, 16), mode="bilinear")
    assert torch.equal(masks, expected)


def test_a_sampling_rate_means_its_last_layer() -> None:
    generator = attach_spatial_constriction(MarginGenerator(), 4, [8, 16])
    assert attachment_of(generator).layers == ("L1_12_6", "L2_20_6")
    by_name = attach_spatial_constriction(MarginGenerator(), 2, layers=["L0_12_6"])
    assert attachment_of(by_name).layers == ("L0_12_6",)


def test_residual_blocks_are_constricted_as_a_whole_but_not_the_last() -> None:
    generator = AdaLikeGenerator(architecture="resnet").eval()
    z = torch.randn(2, 7)
    before = run(generator, z[:, :5].contiguous())
    attach_spatial_constriction(generator, 2, [16])
    assert torch.equal(run(generator, z), before)
    assert hasattr(generator.synthesis.b16, "constriction")
    with pytest.raises(ValueError, match="no resolution 32 can be constricted here; there are 4, 8, 16"):
        attach_spatial_constriction(AdaLikeGenerator(architecture="resnet"), 2, [32])


def test_traverse_moves_only_the_swept_code() -> None:
    generator = attached()
    z = wide_z(1)
    images = traverse(generator, z, points=3, bound=2.0, dims=[0, 3])
    assert images.shape == (2, 3, 3, 32, 32)
    z[:, 5 + 3] = 2
    torch.testing.assert_close(images[1, 2], run(generator, z)[0])


def test_an_attached_generator_looks_like_a_generator_of_codes() -> None:
    view = AttachedGenerator(attached(), z=torch.randn(1, 5))
    codes = torch.randn(3, K)
    images, masks = view(codes, noise_mode="const", return_masks=True)
    assert torch.equal(view(codes), images)
    assert masks.shape == (3, K, 32, 32)
    assert (view.num_codes, view.masked_codes) == (K, [0, 1, 2, 3])


def test_codes_in_w_can_be_replaced() -> None:
    generator = attached()
    ws = generator.mapping(wide_z(), None)
    other = torch.randn(2, K)
    assert torch.equal(codes_of(generator, with_codes(generator, ws, other)), other)
    with pytest.raises(ValueError, match=r"codes must be \[N, 4\]"):
        with_codes(generator, ws, torch.randn(2, K + 1))


def test_widen_appends_codes_only_where_they_are_missing() -> None:
    generator = attached()
    z = torch.randn(2, 5)
    assert torch.equal(widen(generator, z), torch.cat([z, torch.zeros(2, K)], 1))
    assert widen(generator, z, random=True)[:, 5:].abs().min() > 0
    assert widen(generator, wide_z()).shape == (2, 5 + K)
    assert widen(AdaLikeGenerator(), z) is z


class Plain(nn.Module):
    """A generator of nobody's conventions."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(5, 6 * 16)
        self.body = nn.Sequential(nn.ConvTranspose2d(6, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU())
        self.end = nn.Conv2d(6, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.body(self.start(z).view(-1, 6, 4, 4)))


def test_any_module_can_be_attached_by_the_names_of_its_layers() -> None:
    generator = Plain().train()
    statistics = generator.body[1].running_mean.clone()
    attach_spatial_constriction(generator, 3, layers=["body"], z_dim=5, init="random")
    assert torch.equal(generator.body[1].running_mean, statistics)
    assert generator.training
    generator.eval()
    z = torch.randn(2, 8)
    moved = z + torch.eye(8)[6]
    assert (generator(moved) - generator(z)).abs().max() > 1e-4
    assert masks_of(generator, z).shape == (2, 3, 8, 8)
    assert traverse(generator, points=2).shape == (3, 2, 3, 8, 8)


@pytest.mark.parametrize(
    ("layers", "z_dim", "message"),
    [
        (["middle"], 5, "has no module middle; its modules: start, body"),
        (["start"], 5, "module 'start' returns no features"),
        (["body"], None, "give z_dim"),
    ],
)
def test_named_layers_that_do_not_fit_are_named(layers: list[str], z_dim: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach_spatial_constriction(Plain(), 2, layers=layers, z_dim=z_dim)


def test_forks_in_two_parts_are_attached_by_the_names_of_their_layers() -> None:
    generator = AdaLikeGenerator(c_dim=2).eval()
    del generator.synthesis.block_resolutions
    generator.synthesis.forward = lambda ws, noise_mode="const": generator.synthesis.b4(None, None, ws[:, :2])[1]
    attach_spatial_constriction(generator, 2, layers=["synthesis.b4.conv1"], init="random")
    assert traverse(generator, points=2).shape == (2, 2, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_features_of_another_precision_stay_in_it(dtype: torch.dtype) -> None:
    generator = attached("identity")
    seen = []
    block = generator.synthesis.b16

    def cast(module: nn.Module, args: Any) -> Any:
        return (args[0].to(dtype), *args[1:])

    block.torgb.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype) or (args[0].float(),))
    block.conv1.weight.data = block.conv1.weight.data.to(dtype)
    block.conv1.register_forward_pre_hook(cast)
    block.conv1.affine.register_forward_hook(lambda module, args, output: output.to(dtype))
    block.conv1.noise_const = block.conv1.noise_const.to(dtype)
    block.conv1.noise_strength.data = block.conv1.noise_strength.data.to(dtype)
    generator.synthesis.b32.conv0.register_forward_pre_hook(lambda module, args: (args[0].float(), *args[1:]))
    run(generator, wide_z())
    assert seen == [dtype]
