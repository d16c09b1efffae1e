"""Train a small StyleGAN2 on rendered 3D shapes, attach spatial constriction, fine-tune, and show what the codes do.

Stands for anyone's training code: the networks and the loss below have the conventions of stylegan2-ada-pytorch and
know nothing of sc-layers. Leaves `attached.png`, a labelled row a code with its mask, and prints numbers before and
after. FID moves while any GAN trains, so `--control` fine-tunes a copy without codes by as many images, and prints its
FID, too.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sc_layers.attach import AttachedGenerator, AttachedSampler, codes_of, images_and_masks
from sc_layers.data import open_dataset
from sc_layers.images import to_network_range
from sc_layers.integrations import Training
from sc_layers.integrations.sight import draw_sheet, gains
from sc_layers.losses import discriminator_loss, generator_loss, r1_penalty
from sc_layers.metrics import factor_vae, fid
from sc_layers.metrics.generators import Sampling
from sc_layers.metrics.traversal_length import traversal_perceptual_length
from sc_layers.models import Discriminator, DiscriminatorConfig

RESOLUTION = 32
Z_DIM, W_DIM, WIDTHS = 32, 64, (64, 64, 32, 16)
BATCH = 16
LEARNING_RATE = 0.002
R1_INTERVAL = 16
NUM_CODES = 6
FID_SEEDS = 2


class Linear(nn.Module):
    """Linear layer with equalised learning rate."""

    def __init__(self, in_features: int, out_features: int, bias: float = 0.0, lr: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr)
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr))
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (self.lr / math.sqrt(x.shape[1])), self.bias * self.lr)


class ModulatedConv(nn.Module):
    """Convolution whose input channels w scales, and whose output channels have unit scale again."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.affine = Linear(W_DIM, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))

    def modulated(self, x: Tensor, w: Tensor, demodulate: bool) -> Tensor:
        styles = self.affine(w)
        weight = self.weight / math.sqrt(self.weight[0].numel())
        x = F.conv2d(x * styles[:, :, None, None], weight, padding=self.weight.shape[2] // 2)
        if not demodulate:
            return x
        return x * (styles.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()[:, :, None, None]


class Layer(ModulatedConv):
    """Modulated convolution with noise, bias and leaky ReLU, after doubling the resolution where told."""

    def __init__(self, in_channels: int, out_channels: int, size: int, up: bool = False) -> None:
        super().__init__(in_channels, out_channels)
        self.up = up
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random") -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear") if self.up else x
        x = self.modulated(x, w, demodulate=True)
        noise = torch.randn(len(x), 1, *x.shape[2:]) if noise_mode == "random" else self.noise_const
        return F.leaky_relu(x + noise * self.noise_strength + self.bias[:, None, None], 0.2) * math.sqrt(2)


class ToRGB(ModulatedConv):
    """Modulated 1x1 convolution to colours."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.modulated(x, w, demodulate=False)


class Block(nn.Module):
    """The layers of one resolution."""

    architecture = "skip"

    def __init__(self, in_channels: int, out_channels: int, size: int, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, size, size))
        else:
            self.conv0 = Layer(in_channels, out_channels, size, up=True)
        self.conv1 = Layer(out_channels, out_channels, size)
        self.torgb = ToRGB(out_channels, 3, kernel=1)

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise_mode: str) -> tuple[Tensor, Tensor]:
        x = self.const.expand(len(ws), -1, -1, -1) if x is None else self.conv0(x, ws[:, 0], noise_mode)
        x = self.conv1(x, ws[:, -2], noise_mode)
        rgb = self.torgb(x, ws[:, -1])
        return x, rgb if image is None else F.interpolate(image, scale_factor=2, mode="bilinear") + rgb


class Synthesis(nn.Module):
    """w [N, L, W] -> images."""

    def __init__(self) -> None:
        super().__init__()
        self.block_resolutions = [4 << index for index in range(len(WIDTHS))]
        for before, width, size in zip((0, *WIDTHS), WIDTHS, self.block_resolutions, strict=False):
            setattr(self, f"b{size}", Block(before, width, size, size == RESOLUTION))

    def forward(self, ws: Tensor, noise_mode: str = "random") -> Tensor:
        x = image = None
        row = 0
        for size in self.block_resolutions:
            rows = 2 if size == 4 else 3
            x, image = getattr(self, f"b{size}")(x, image, ws[:, row : row + rows], noise_mode)
            row += rows - 1
        return image


class Mapping(nn.Module):
    """z [N, Z] -> w [N, L, W]."""

    def __init__(self, num_ws: int) -> None:
        super().__init__()
        self.num_ws = num_ws
        self.layers = nn.ModuleList(Linear(width, W_DIM, lr=0.01) for width in (Z_DIM, W_DIM, W_DIM, W_DIM))
        self.register_buffer("w_avg", torch.zeros(W_DIM))

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            w = F.leaky_relu(layer(w), 0.2) * math.sqrt(2)
        if self.training:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, 0.995))
        return self.w_avg.lerp(w[:, None].expand(-1, self.num_ws, -1), truncation_psi)


class Generator(nn.Module):
    """A StyleGAN2 with the attributes that stylegan2-ada-pytorch's has."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.img_resolution, self.img_channels = Z_DIM, 0, W_DIM, RESOLUTION, 3
        self.synthesis = Synthesis()
        self.num_ws = 2 * len(WIDTHS)
        self.mapping = Mapping(self.num_ws)

    def forward(self, z: Tensor, c: Tensor | None = None, **options: Any) -> Tensor:
        return self.synthesis(self.mapping(z, c), **options)


class Loss:
    """The adversarial loss of StyleGAN2."""

    def __init__(self, G: nn.Module, D: nn.Module) -> None:
        self.G, self.D = G, D

    def run_G(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        ws = self.G.mapping(z, c)
        return self.G.synthesis(ws), ws

    def accumulate_gradients(self, phase: str, real_img: Tensor, gen_z: Tensor, gain: float) -> None:
        if phase == "Gmain":
            generator_loss(self.D(self.run_G(gen_z, gen_z[:, :0])[0])).mean().mul(gain).backward()
        elif phase == "Dmain":
            fakes = self.run_G(gen_z, gen_z[:, :0])[0].detach()
            discriminator_loss(self.D(fakes), self.D(real_img)).mean().mul(gain).backward()
        else:
            r1_penalty(self.D, real_img, gamma=1.0).mean().mul(gain).backward()


def make_phases(G: nn.Module, D: nn.Module) -> list[SimpleNamespace]:
    """What is optimised in turn, as stylegan2-ada-pytorch has it."""
    ratio = R1_INTERVAL / (R1_INTERVAL + 1)
    of_g = torch.optim.Adam(G.parameters(), LEARNING_RATE, (0.0, 0.99))
    of_d = torch.optim.Adam(D.parameters(), LEARNING_RATE * ratio, (0.0, 0.99**ratio))
    return [
        SimpleNamespace(name="Gmain", module=G, opt=of_g, interval=1),
        SimpleNamespace(name="Dmain", module=D, opt=of_d, interval=1),
        SimpleNamespace(name="Dreg", module=D, opt=of_d, interval=R1_INTERVAL),
    ]


def train(networks: dict[str, nn.Module], loss: Any, phases: list[Any], data: Any, kimg: float) -> None:
    """Train for so many thousand images; `G_ema` follows `G`."""
    G, average = networks["G"], networks["G_ema"]
    draws = torch.Generator().manual_seed(torch.initial_seed())
    for step in range(round(kimg * 1000 / BATCH)):
        reals = to_network_range(data.sample(BATCH, draws))
        for phase in [phase for phase in phases if step % phase.interval == 0]:
            phase.module.requires_grad_(True)
            z = torch.randn(BATCH, G.z_dim)
            loss.accumulate_gradients(phase=phase.name, real_img=reals, gen_z=z, gain=phase.interval)
            phase.module.requires_grad_(False)
            phase.opt.step()
            phase.opt.zero_grad()
        half_life = min(3000, max(200, 0.1 * step * BATCH))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(G.parameters()), 1 - 0.5 ** (BATCH / half_life))
            for own, other in zip(average.buffers(), G.buffers(), strict=True):
                own.copy_(other)
        if (step + 1) % 250 == 0:
            print(f"{(step + 1) * BATCH} images", flush=True)


@torch.no_grad()
def share_inside(G: nn.Module) -> list[float]:
    """Of each code the share of the images' change that lies in the quarter of the picture where its mask is highest.

    A code that acts anywhere has 0.25.
    """
    z = torch.randn(32, G.z_dim, generator=torch.Generator().manual_seed(0))
    _, masks = images_and_masks(G, G.mapping(z))
    shares = []
    for code in range(NUM_CODES):
        low, high = z.clone(), z.clone()
        low[:, Z_DIM + code], high[:, Z_DIM + code] = -2, 2
        change = (G(high, noise_mode="const") - G(low, noise_mode="const")).abs().mean(1).flatten(1)
        mask = masks[:, code].flatten(1)
        inside = mask >= mask.quantile(0.75, dim=1, keepdim=True)
        shares.append(float((change * inside).sum() / change.sum().clamp_min(1e-12)))
    return shares


@torch.no_grad()
def reading(G: nn.Module, Q: nn.Module) -> list[float]:
    """Of each code how much of its variance the recogniser reads from images: 1 is all, 0 is nothing."""
    z = torch.randn(512, G.z_dim, generator=torch.Generator().manual_seed(1))
    ws = G.mapping(z)
    errors = (Q(G.synthesis(ws)) - codes_of(G, ws)).square().mean(0)
    return (1 - errors / codes_of(G, ws).square().mean(0)).tolist()


def report_fid(when: str, sampler: Any, data: Any, images: int) -> None:
    scores = [
        fid(sampler, data, num_images=images, features="efficientnet", sampling=Sampling(seed=seed)).score
        for seed in range(FID_SEEDS)
    ]
    print(f"{when}: FID of {images} images (EfficientNet), seeds 0 and 1: {scores[0]:.1f} {scores[1]:.1f}", flush=True)


def report(when: str, G: nn.Module, Q: nn.Module, data: Any, images: int) -> None:
    view = AttachedGenerator(G)
    tpl = traversal_perceptual_length(view, distance="mse")
    numbers = {
        "gains": gains(G).tolist(),
        "share of change in the mask's top quarter": share_inside(G),
        "read by Q": reading(G, Q),
        "TPL (squared differences)": [tpl.total],
        "FactorVAE of Q": [factor_vae(Q, data, num_train=200, num_eval=100, num_variance=1000, vote_size=32).score],
    }
    for name, values in numbers.items():
        print(f"{when}: {name}: {' '.join(f'{value:.2f}' for value in values)}", flush=True)
    report_fid(when, AttachedSampler(view), data, images)


def tune_without_codes(pretrained: dict[str, Any], data: Any, kimg: float, images: int) -> None:
    """The control: what as much training does to a copy without codes."""
    networks = copy.deepcopy(pretrained)
    G, D = networks["G"], networks["D"]
    train(networks, Loss(G, D), make_phases(G, D), data, kimg)
    average = networks["G_ema"]
    average.num_codes = Z_DIM
    report_fid("control", average, data, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("attached"))
    parser.add_argument("--kimg", type=float, default=60.0, help="of the GAN alone; 0 takes pretrained.pt of --outdir")
    parser.add_argument("--tune-kimg", type=float, default=6.0, help="with codes")
    parser.add_argument("--images", type=int, default=1000, help="for FID")
    parser.add_argument("--control", action="store_true", help="fine-tune a copy without codes as well")
    parser.add_argument("--seed", type=int, default=0, help="of the fine-tuning; the GAN alone has seed 0")
    arguments = parser.parse_args()
    arguments.outdir.mkdir(exist_ok=True)
    torch.manual_seed(0)
    data = open_dataset("shapes3d", resolution=RESOLUTION)

    G, D = Generator(), Discriminator(DiscriminatorConfig(resolution=RESOLUTION, fmap_base=256, fmap_max=64))
    pretrained: dict[str, Any] = {"G": G, "D": D, "G_ema": copy.deepcopy(G).eval().requires_grad_(False)}
    file = arguments.outdir / "pretrained.pt"
    if arguments.kimg:
        train(pretrained, Loss(G, D), make_phases(G, D), data, arguments.kimg)
        torch.save({name: network.state_dict() for name, network in pretrained.items()}, file)
    else:
        for name, weights in torch.load(file).items():
            pretrained[name].load_state_dict(weights)

    if arguments.control:
        torch.manual_seed(arguments.seed)
        tune_without_codes(pretrained, data, arguments.tune_kimg, arguments.images)

    # What follows is all that a training script adds.
    torch.manual_seed(arguments.seed)
    G = Generator()
    sc = Training(G, torch.device("cpu"), sc_codes=NUM_CODES, sc_res=[8, 16])
    networks: dict[str, Any] = {"G": G, "D": D, "G_ema": copy.deepcopy(G).eval()}
    sc.resume(pretrained)
    for name in ("G", "G_ema"):
        networks[name].load_state_dict(pretrained[name].state_dict())
    loss = sc.wrap_loss(Loss(G, D), lambda name, values: None)
    phases = make_phases(G, D)
    sc.join(phases)

    report("before", networks["G_ema"], sc.Q, data, arguments.images)
    train(networks, loss, phases, data, arguments.tune_kimg)
    report("after", networks["G_ema"], sc.Q, data, arguments.images)
    draw_sheet(networks["G_ema"], arguments.outdir / "attached.png")
    print(f"look at {arguments.outdir / 'attached.png'}")


if __name__ == "__main__":
    main()
