"""Generators of other conventions: more arguments than z, w of their own, w that several networks share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sc_layers.attach import (
    attach_spatial_constriction,
    attachment_of,
    detach_spatial_constriction,
    masks_of,
    traverse,
)
from tests.attach.samples import images_move
from tests.integrations.toys import (
    AdaLikeGenerator,
    Upsampler,
)

K = 3


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


class Camera(nn.Module):
    """A generator of z [N, 5] and a camera [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(7, 6 * 16)
        self.body = nn.ConvTranspose2d(6, 6, 2, 2)
        self.end = nn.Conv2d(6, 3, 1)

    def forward(self, z: Tensor, camera: Tensor) -> dict[str, Tensor]:
        features = self.body(self.start(torch.cat([z, camera], dim=1)).view(-1, 6, 4, 4))
        return {"depth": features, "image": self.end(features)}


CAMERA = torch.tensor([[1.0, -1.0]])


def test_other_arguments_than_z_are_given_by_an_example() -> None:
    generator = Camera().eval()
    z = torch.randn(2, 5)
    before = generator(z, CAMERA.expand(2, -1))["image"]
    attach_spatial_constriction(generator, K, layers=["body"], example_inputs=(torch.zeros(1, 5), CAMERA))
    wide = torch.cat([z, torch.randn(2, K)], 1)
    assert torch.equal(generator(wide, camera=CAMERA.expand(2, -1))["image"], before)
    detach_spatial_constriction(generator)
    inputs = (torch.zeros(1, 5), CAMERA)
    attach_spatial_constriction(generator, K, layers=["body"], example_inputs=inputs, init="random")
    assert images_move(lambda z: generator(z, CAMERA.expand(len(z), -1))["image"], wide, K) == [True] * K
    assert masks_of(generator, wide).shape == (2, K, 8, 8)
    assert traverse(generator, points=2).shape == (K, 2, 3, 8, 8)


def test_a_module_that_needs_more_than_z_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"Camera can't be called with 1 arguments .*: give example_inputs, a tuple"):
        attach_spatial_constriction(Camera(), K, layers=["body"], z_dim=5)
    with pytest.raises(ValueError, match=r"must be z of one sample, \[1, z_dim\], got \(2, 5\)"):
        attach_spatial_constriction(Camera(), K, layers=["body"], example_inputs=(torch.zeros(2, 5), CAMERA))


class FastMapping(nn.Module):
    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return z[:, None]


class FastSynthesis(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(5, 6 * 16)
        self.feat_8 = nn.ConvTranspose2d(6, 6, 2, 2)
        self.more = nn.ModuleList([nn.Conv2d(6, 6, 1), nn.ConvTranspose2d(6, 4, 2, 2)])
        self.end = nn.Conv2d(4, 3, 1)

    def forward(self, input: Tensor, c: Tensor) -> Tensor:
        features = self.feat_8(self.start(input[:, 0]).view(-1, 6, 4, 4))
        for module in self.more:
            features = module(features)
        return self.end(features)


class FastLikeGenerator(nn.Module):
    """Conventions of projected-gan's FastGAN: its w is z, whatever its w_dim says."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = 5, 0, 0
        self.mapping, self.synthesis = FastMapping(), FastSynthesis()

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z, c), c)


def test_a_generator_whose_w_is_z_is_attached_and_detached() -> None:
    generator = FastLikeGenerator().eval()
    z, c = torch.randn(2, 5), torch.zeros(2, 0)
    before = generator(z, c)
    attach_spatial_constriction(generator, K, layers=["synthesis.feat_8"])
    wide = torch.cat([z, torch.randn(2, K)], 1)
    assert torch.equal(generator(wide, c), before)
    assert (generator.z_dim, generator.w_dim) == (5 + K, 0)
    detach_spatial_constriction(generator)
    assert (generator.z_dim, generator.w_dim) == (5, 0)
    attach_spatial_constriction(generator, K, layers=["synthesis.feat_8"], init="random")
    assert images_move(lambda z: generator(z, c), wide, K) == [True] * K
    assert traverse(generator, points=2).shape == (K, 2, 3, 16, 16)


def test_a_generator_of_unknown_conventions_is_attached_by_resolution_after_its_last_part() -> None:
    generator = FastLikeGenerator().eval()
    attach_spatial_constriction(generator, 2, [8, 16])
    assert attachment_of(generator).layers == ("synthesis.more.0", "synthesis.more.1")
    with pytest.raises(ValueError, match="no resolution 32 can be constricted here; there are 8, 16"):
        attach_spatial_constriction(FastLikeGenerator().eval(), 2, [32])


class PosedGenerator(FastLikeGenerator):
    """A generator of unknown conventions that needs more than z and a class."""

    def forward(self, z: Tensor, c: Tensor, pose: Tensor) -> Tensor:
        return super().forward(z + pose, c)


def test_a_generator_of_unknown_conventions_that_needs_more_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"PosedGenerator can't be called with 2 arguments .*: give example_inputs"):
        attach_spatial_constriction(PosedGenerator().eval(), 2, [8])
    inputs = (torch.zeros(1, 5), torch.zeros(1, 0), torch.zeros(1, 1))
    generator = attach_spatial_constriction(PosedGenerator().eval(), 2, [8], example_inputs=inputs)
    assert attachment_of(generator).layers == ("synthesis.more.0",)


def test_a_layer_of_unknown_conventions_outside_its_generator_says_what_to_do() -> None:
    generator = attach_spatial_constriction(FastLikeGenerator(), K, layers=["synthesis.feat_8"])
    with pytest.raises(RuntimeError, match="outside its generator's forward pass"):
        generator.synthesis.feat_8(torch.randn(1, 6, 4, 4))


def test_nothing_is_in_flight_after_a_failure() -> None:
    generator = attach_spatial_constriction(FastLikeGenerator(), K, layers=["synthesis.feat_8"])
    with pytest.raises(TypeError):
        generator.synthesis(torch.randn(1, 1, 5 + K))
    with pytest.raises(RuntimeError, match="outside its generator's forward pass"):
        generator.synthesis.feat_8(torch.randn(1, 6, 4, 4))


def test_a_generator_of_unknown_conventions_compiles_to_one_graph() -> None:
    generator = attach_spatial_constriction(FastLikeGenerator().eval(), K, layers=["synthesis.feat_8"], init="random")
    z, c = torch.randn(2, 5 + K), torch.zeros(2, 0)
    torch._dynamo.reset()
    compiled = torch.compile(generator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, c), generator(z, c))


class SharedW(AdaLikeGenerator):
    """A second network reads the w that synthesis reads, and its ways are unknown."""

    def __init__(self) -> None:
        super().__init__()
        del self.synthesis.block_resolutions
        self.upsampler = Upsampler()

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        ws = self.mapping(z, c)
        return self.upsampler(torch.zeros(len(z), 3, 32, 32), torch.zeros(len(z), 6, 32, 32), ws)


def test_modules_that_share_w_are_named() -> None:
    generator = SharedW()
    generator.synthesis.forward = lambda ws: generator.synthesis.b4(None, None, ws)[1]
    forward = SharedW.forward
    generator.forward = lambda z, c=None: (generator.synthesis(generator.mapping(z, c)), forward(generator, z, c))[1]
    before = list(generator.state_dict())
    with pytest.raises(ValueError, match=r"besides synthesis, upsampler.* of SharedW also reads w"):
        attach_spatial_constriction(generator, 2, layers=["synthesis.b4.conv1"])
    assert list(generator.state_dict()) == before
    assert not hasattr(generator, "spatial_constriction")
