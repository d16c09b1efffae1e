"""ONNX and torch.export programs give PyTorch's numbers, for any batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sc_layers.checkpoints.export import save_onnx, save_pt2, to_program
from sc_layers.models import Generator, GeneratorConfig
from tests.tolerances import OTHER_RUNTIME

MODULES = "[Const-2, ResConv-up-1, C_spgroup-1-2, Noise-1, C_spgroup_sm-1, C_global-1]"


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(resolution=8, module_list=MODULES, fmap_base=4, fmap_min=2, fmap_max=4)
    generator = Generator(config, impl="reference").eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            parameter.normal_(0, 0.5)
    return generator


@pytest.fixture(scope="module")
def program(generator: Generator) -> torch.export.ExportedProgram:
    return to_program(generator, "const", masks=True)


@pytest.mark.slow
def test_pt2_program_gives_the_same_images_and_masks(
    generator: Generator, program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    save_pt2(program, tmp_path / "g.pt2")
    loaded = torch.export.load(tmp_path / "g.pt2").module()
    for batch in (1, 2, 5):
        codes = torch.randn(batch, 4)
        expected = generator(codes, noise_mode="const", return_masks=True)
        for result, wanted in zip(loaded(codes), expected, strict=True):
            torch.testing.assert_close(result, wanted, **OTHER_RUNTIME)


@pytest.mark.slow
def test_onnx_program_gives_the_same_images_and_masks(
    generator: Generator, program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    save_onnx(program, tmp_path / "g.onnx")
    session = runtime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["codes"]
    assert [value.name for value in session.get_outputs()] == ["images", "masks"]
    assert {value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    for batch in (1, 2, 5):
        codes = torch.randn(batch, 4)
        results = session.run(None, {"codes": codes.numpy()})
        expected = generator(codes, noise_mode="const", return_masks=True)
        for result, wanted in zip(results, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(result), wanted, **OTHER_RUNTIME)


def test_random_noise_is_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="draws no noise"):
        to_program(generator, "random")


def test_the_native_operator_is_refused(generator: Generator) -> None:
    config = GeneratorConfig(resolution=8, module_list="[Const-2, ResConv-up-1, C_spgroup-1-1]")
    with pytest.raises(ValueError, match="impl='reference', got impl='auto'"):
        to_program(Generator(config))
