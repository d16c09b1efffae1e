"""The fused operator as a citizen of PyTorch: derivatives, tracing, transforms, modules."""

from __future__ import annotations

import copy
import ctypes
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sc_layers import SpatialConstriction
from sc_layers import functional as F
from sc_layers.models import Generator
from sc_layers.models.generator import GeneratorConfig
from tests.ops.samples import EPS, layer_inputs, result_and_gradients, sample_inputs, weights_for
from tests.tolerances import FUSED_GRADIENT, SAME_FORMULA, assert_close_to_largest

LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OPCHECK_SIZES = [(2, 5, 6, 7, 3, 2), (1, 1, 1, 1, 1, 1), (3, 17, 4, 4, 1, 1)]


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.statistics(x.detach(), EPS, "fused")


@pytest.mark.parametrize("sizes", OPCHECK_SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype: torch.dtype, layout: torch.memory_format, sizes: tuple[int, ...]) -> None:
    for gain in (True, False):
        inputs = sample_inputs(*sizes, dtype=dtype, memory_format=layout, gain=gain)
        torch.library.opcheck(torch.ops.sc_layers.constrict.default, (*inputs, *_statistics(inputs[0]), EPS))
        inputs = layer_inputs(*sizes, dtype=dtype, memory_format=layout, gain=gain)
        torch.library.opcheck(torch.ops.sc_layers.constrict_layer.default, (*inputs, EPS))
    torch.library.opcheck(torch.ops.sc_layers.statistics.default, (inputs[0], EPS))


@pytest.mark.parametrize("wants_x", [True, False])
@pytest.mark.parametrize("gain", [True, False])
def test_opcheck_of_the_backward_operator(gain: bool, wants_x: bool) -> None:
    for layout in LAYOUTS:
        inputs = sample_inputs(memory_format=layout, gain=gain, requires_grad=False)
        arguments = (torch.randn_like(inputs[0]), *inputs, *_statistics(inputs[0]), wants_x)
        torch.library.opcheck(torch.ops.sc_layers.constrict_backward.default, arguments)


@pytest.mark.parametrize("wanted", [0b1111111, 0b0000010, 0b0111100])
@pytest.mark.parametrize("masks", [True, False])
def test_opcheck_of_the_layers_backward_operator(masks: bool, wanted: int) -> None:
    for layout in LAYOUTS:
        inputs = layer_inputs(memory_format=layout, requires_grad=False)
        y, *kept = torch.ops.sc_layers.constrict_layer(*inputs, EPS)
        grads = (torch.randn_like(y), *(torch.randn_like(logits) if masks else None for logits in kept[2:]))
        torch.library.opcheck(torch.ops.sc_layers.constrict_layer_backward.default, (*grads, *inputs, *kept, wanted))


def test_opcheck_of_a_layout_that_is_copied() -> None:
    inputs = sample_inputs(requires_grad=False)
    for x in (inputs[0].mT.contiguous().mT, inputs[0].expand(2, 5, 6, 7)[:, :, ::2].expand(2, 5, 3, 7)):
        arguments = [x, inputs[1][..., : x.shape[2]], *inputs[2:]]
        torch.library.opcheck(torch.ops.sc_layers.constrict.default, (*arguments, *_statistics(x), EPS))


@pytest.mark.parametrize("gain", [True, False])
def test_gradcheck_and_gradgradcheck(gain: bool) -> None:
    inputs = sample_inputs(2, 2, 3, 2, 2, 2, dtype=torch.float64, gain=gain)
    inputs = inputs if gain else inputs[:5]

    def function(*tensors: Tensor) -> Tensor:
        return F.constrict(*tensors, eps=1e-2, impl="fused")

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("gain", [True, False])
def test_gradcheck_and_gradgradcheck_of_the_layer(gain: bool) -> None:
    inputs = layer_inputs(2, 2, 3, 2, 2, 2, dtype=torch.float64, gain=gain)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        gains = () if gain else (None,)
        return F.spatial_constriction(*tensors, *gains, eps=1e-2, impl="fused")

    assert torch.autograd.gradcheck(function, inputs if gain else inputs[:6])
    assert torch.autograd.gradgradcheck(function, inputs if gain else inputs[:6])


def test_gradcheck_and_gradgradcheck_of_the_statistics() -> None:
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: F.statistics(x, 1e-2, "fused"), [x])
    assert torch.autograd.gradgradcheck(lambda x: F.statistics(x, 1e-2, "fused"), [x])


def _derivatives(impl: str, order: int, loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Derivatives of a nonlinear loss by inputs that depend on each other: the logits and styles are made from x."""
    inputs = sample_inputs(2, 3, 4, 5, 3, 2, dtype=torch.float64)
    x, logits_h, logits_w, scale, bias, gain = inputs
    pooled = x.mean((2, 3))
    y = F.constrict(
        x,
        logits_h + pooled.mean(1)[:, None, None, None, None],
        logits_w * (1 + pooled[:, 0, None, None, None, None]),
        scale + pooled[:, None],
        bias * scale,
        gain,
        1e-2,
        impl,
    )
    return _derivatives_of(loss(y), inputs, order)


def _layer_derivatives(impl: str, order: int, loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The same of the layer, of y and the masks, by inputs of which the codes and gates are made from x."""
    inputs = layer_inputs(2, 3, 4, 5, 3, 2, dtype=torch.float64)
    x, codes, gates_h, gates_w, weight, bias, gain = inputs
    pooled = x.mean((2, 3))
    y, *logits = F.spatial_constriction(
        x, codes * pooled, gates_h * pooled.mean(), gates_w, weight * gain[:, None, None], bias, gain, 1e-2, impl
    )
    return _derivatives_of(loss(y) + loss(F.rectangle_masks(*logits)), inputs, order)


def _derivatives_of(loss: Tensor, inputs: list[Tensor], order: int) -> list[Tensor]:
    grads = torch.autograd.grad(loss, inputs, create_graph=order > 1)
    for left in range(order - 1, 0, -1):
        total = sum((grad**3).sum() for grad in grads)
        grads = torch.autograd.grad(total, inputs, create_graph=left > 1)
    return list(grads)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_higher_derivatives_of_a_nonlinear_function_equal_the_references(order: int) -> None:
    def loss(y: Tensor) -> Tensor:
        return (y**3).sum()

    for function in (_derivatives, _layer_derivatives):
        pairs = zip(function("fused", order, loss), function("reference", order, loss), strict=True)
        for ours, reference in pairs:
            assert_close_to_largest(ours, reference, 1e-10)


def test_path_length_penalty_is_differentiable_in_half_precision() -> None:
    inputs = sample_inputs(dtype=torch.bfloat16)
    y = F.constrict(*inputs, impl="fused")
    grads = torch.autograd.grad((y.float() ** 2).sum(), [inputs[0], inputs[3]], create_graph=True)
    sum(grad.float().square().mean() for grad in grads).backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in inputs)


def test_statistics_of_the_layer_operator_are_not_differentiable() -> None:
    y, mean, rstd, *logits = torch.ops.sc_layers.constrict_layer(*layer_inputs(), EPS)
    assert [t.requires_grad for t in (y, mean, rstd, *logits)] == [True, False, False, True, True]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1.06), (torch.bfloat16, 1.12)])
@pytest.mark.parametrize("function", [F.constrict, F.spatial_constriction])
def test_backward_keeps_little_more_than_x(
    function: Callable[..., Tensor | tuple[Tensor, ...]], dtype: torch.dtype, limit: float
) -> None:
    make_inputs = sample_inputs if function is F.constrict else layer_inputs
    inputs = make_inputs(8, 512, 16, 16, 5, 4, dtype=dtype, gain=False)
    parameters = {t.data_ptr() for t in inputs[1:] if t is not None} if function is F.spatial_constriction else set()
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(*inputs, impl="fused")
    y = result if isinstance(result, Tensor) else result[0]
    assert y.untyped_storage().data_ptr() not in storages
    assert sum(storages.values()) <= limit * inputs[0].untyped_storage().nbytes()


# ---- tracing


class _Recorder:
    """A backend for torch.compile that runs the graph as it is and remembers which operators it has."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    def __call__(self, module: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., object]:
        from torch._dynamo.backends.common import aot_autograd

        def record(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
            self.targets += [str(node.target) for node in graph.graph.nodes]
            return graph

        return aot_autograd(fw_compiler=record, bw_compiler=record)(module, example)


def _small_generator() -> Generator:
    modules = "[Const-8, ResConv-up-1, C_spgroup-2-3, ResConv-id-1, Noise-1, ResConv-up-1, C_spgroup-1-2, Conv-id-1]"
    return Generator(GeneratorConfig(module_list=modules, resolution=16, fmap_min=6, fmap_max=8))


@pytest.fixture
def _fresh_dynamo() -> None:
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
def test_layer_compiles_to_one_graph_with_the_fused_operator_and_dynamic_batch() -> None:
    layer = SpatialConstriction(6, (8, 9), 5, 3)
    recorder = _Recorder()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=recorder)
    for n in (2, 3, 5):
        x, codes = torch.randn(n, 6, 8, 9, requires_grad=True), torch.randn(n, 5)
        (ours,) = torch.autograd.grad(compiled(x, codes).pow(2).sum(), [x])
        (eager,) = torch.autograd.grad(layer(x, codes).pow(2).sum(), [x])
        torch.testing.assert_close(ours, eager, **SAME_FORMULA[torch.float32])
    assert recorder.targets.count("sc_layers.constrict_layer.default") == 1  # one graph for all batches
    assert recorder.targets.count("sc_layers.constrict_layer_backward.default") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_dynamo")
def test_generator_compiles_to_one_graph() -> None:
    generator = _small_generator()
    recorder = _Recorder()
    compiled = torch.compile(generator, fullgraph=True, dynamic=True, backend=recorder)
    for n in (2, 3):
        codes = torch.randn(n, 5)
        images, masks = compiled(codes, noise_mode="const", return_masks=True)
        expected_images, expected_masks = generator(codes, noise_mode="const", return_masks=True)
        torch.testing.assert_close(images, expected_images, **SAME_FORMULA[torch.float32])
        torch.testing.assert_close(masks, expected_masks, **SAME_FORMULA[torch.float32])
    assert recorder.targets.count("sc_layers.constrict_layer.default") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_dynamo")
def test_inductor_runs_the_layer_between_other_layers() -> None:
    layer = SpatialConstriction(6, (8, 9), 2, 2)

    def function(x: Tensor, codes: Tensor) -> Tensor:
        return (layer(x.sin() * 2, codes) + 1).pow(2)

    x = torch.randn(2, 6, 8, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    codes = torch.randn(2, 2)
    compiled = torch.compile(function, fullgraph=True)(x, codes)
    assert compiled.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(compiled, function(x, codes), **SAME_FORMULA[torch.float32])
    (ours,) = torch.autograd.grad(compiled.sum(), [x])
    (eager,) = torch.autograd.grad(function(x, codes).sum(), [x])
    torch.testing.assert_close(ours, eager, **FUSED_GRADIENT)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_double_backward_of_a_compiled_layer_keeps_pytorchs_error() -> None:
    layer = SpatialConstriction(3, 4, 2, 1)
    x, codes = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 2)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, codes)
    (grad,) = torch.autograd.grad(y.pow(3).sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        grad.sum().backward()


def test_export_holds_the_fused_operator_and_takes_other_batches() -> None:
    layer = SpatialConstriction(6, (8, 9), 5, 3).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        layer, (torch.randn(4, 6, 8, 9), torch.randn(4, 5)), dynamic_shapes=({0: batch}, {0: batch})
    )
    assert any(str(node.target) == "sc_layers.constrict_layer.default" for node in program.graph.nodes)
    x, codes = torch.randn(7, 6, 8, 9), torch.randn(7, 5)
    torch.testing.assert_close(program.module()(x, codes), layer(x, codes), **SAME_FORMULA[torch.float32])


def test_fake_tensors_and_meta_device_have_shapes_without_data() -> None:
    inputs = [t.detach().to("meta") for t in layer_inputs()]
    outputs = torch.ops.sc_layers.constrict_layer(*inputs, EPS)
    assert [t.shape for t in outputs] == [(2, 5, 6, 7), (2, 5), (2, 5), (2, 3, 2, 2, 6), (2, 3, 2, 2, 7)]
    assert all(t.device.type == "meta" for t in outputs)


# ---- transforms


def _of_x(impl: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    x, *others = sample_inputs(dtype=torch.float64, requires_grad=False)
    _, *parameters = layer_inputs(dtype=torch.float64, requires_grad=False)

    def both(features: Tensor) -> Tensor:
        y, *_ = F.spatial_constriction(features, *parameters, 1e-2, impl)
        return y + F.constrict(features, *others, 1e-2, impl)

    return x, both


def _transforms() -> dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]]:
    def loss_of(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: f(x).pow(3).sum()

    def forward_mode(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, x.sin()))).tangent
        assert tangent is not None
        return tangent

    return {
        "grad": lambda f, x: torch.func.grad(loss_of(f))(x),
        "jvp": lambda f, x: torch.func.jvp(f, (x,), (x.sin(),))[1],
        "vjp": lambda f, x: torch.func.vjp(f, x)[1](x.cos())[0],
        "vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, 2 * x])),
        "vmap of grad": lambda f, x: torch.func.vmap(torch.func.grad(loss_of(f)))(torch.stack([x, x + 1])),
        "grad of grad": lambda f, x: torch.func.grad(lambda x: torch.func.grad(loss_of(f))(x).sin().sum())(x),
        "jvp of grad": lambda f, x: torch.func.jvp(torch.func.grad(loss_of(f)), (x,), (x.sin(),))[1],
        "forward mode": forward_mode,
    }


@pytest.mark.parametrize("transform", _transforms())
def test_transforms_are_right(transform: str) -> None:
    x, ours = _of_x("fused")
    _, reference = _of_x("reference")
    run = _transforms()[transform]
    expected = run(reference, x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(run(ours, x), expected, **SAME_FORMULA[torch.float64])


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("transform", ["grad", "jvp"])
def test_transforms_are_right_in_compiled_functions(transform: str) -> None:
    x, ours = _of_x("fused")
    _, reference = _of_x("reference")
    run = _transforms()[transform]
    compiled = torch.compile(lambda x: run(ours, x), backend="aot_eager")
    torch.testing.assert_close(compiled(x), run(reference, x), **SAME_FORMULA[torch.float64])


# ---- autocast and modules


def test_autocast_leaves_gates_and_styles_in_full_precision() -> None:
    layer = SpatialConstriction(6, 8, 3, 2)
    x, codes = torch.randn(2, 6, 8, 8), torch.randn(2, 3)
    expected = layer(x, codes)
    for impl in ("fused", "reference"):
        layer.impl = impl
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x, codes)
            half = layer(x.bfloat16(), codes)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, expected, **SAME_FORMULA[torch.float32])
        assert half.dtype == torch.bfloat16
        # The gates follow the rounded x; rounding them as well would move the bands by whole rows.
        assert_close_to_largest(half, layer(x.bfloat16().float(), codes), 0.01)


def test_layer_is_copied_pickled_and_run_in_inference_mode() -> None:
    layer = SpatialConstriction(6, 8, 3, 2, mask_gain=0.5)
    x, codes = torch.randn(2, 6, 8, 8), torch.randn(2, 3)
    expected = layer(x, codes)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x, codes), expected)
    with torch.inference_mode():
        assert torch.equal(layer(x, codes), expected)
    # Where there is a GPU, DataParallel insists on a module that lies there.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    replicated = torch.nn.DataParallel(layer.to(device))(x.to(device), codes.to(device))
    torch.testing.assert_close(replicated.cpu(), expected, **SAME_FORMULA[torch.float32])


def test_gradients_under_distributed_data_parallel(tmp_path: Path) -> None:
    layer = SpatialConstriction(6, 8, 3, 2)
    x, codes = torch.randn(2, 6, 8, 8), torch.randn(2, 3)
    layer(x, codes).pow(2).sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}
    layer.zero_grad()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.nn.parallel.DistributedDataParallel(layer)(x, codes).pow(2).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter.grad, expected[name])


def test_checkpointing_recomputes_the_same() -> None:
    inputs = sample_inputs()

    def function(*tensors: Tensor) -> Tensor:
        return F.constrict(*tensors, impl="fused")

    y = torch.utils.checkpoint.checkpoint(function, *inputs, use_reentrant=False)
    grads = torch.autograd.grad(y, inputs, weights_for(y))
    for ours, expected in zip((y, *grads), result_and_gradients(inputs, "fused"), strict=True):
        assert torch.equal(ours, expected)


TELLS_REASONS = hasattr(
    ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")),
    "torch_exception_get_what_without_backtrace",
)

# A layer whose result does not fit into the memory that is left, forward and backward.
_WITHOUT_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from sc_layers import SpatialConstriction
torch.set_num_threads(1)
layer = SpatialConstriction(64, 256, 2, impl="fused")
layer(torch.randn(1, 64, 256, 256), torch.randn(1, 2)).sum().backward()
x, codes = torch.randn(16, 64, 256, 256, requires_grad=True), torch.randn(16, 2)
y = layer(x, codes) if sys.argv[1] == "backward" else None
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    layer(x, codes) if y is None else torch.autograd.grad(y.mean(), [x])
except (RuntimeError, MemoryError) as error:
    print(str(error).splitlines()[0])
"""


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_want_of_memory_is_a_python_exception_and_nothing_else(way: str) -> None:
    command = [sys.executable, "-c", _WITHOUT_MEMORY, way]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "allocat" in result.stdout
    if TELLS_REASONS:  # the first versions with a stable interface print them, with a backtrace, before we hear of it
        assert "allocate memory" in result.stdout
        assert result.stderr == ""
