"""`sc-layers encode`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._common import device_option, network_argument, outdir_option, pick_device
from .metrics import DISTANCES

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 16
_FILE = "encoded.safetensors"


@click.command()
@network_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--steps", type=click.IntRange(0, 100_000), default=200, help="Refine by so many steps; 0 only reads.")
@click.option(
    "--loss", type=click.Choice(DISTANCES), default="mse", help="Refining makes this distance small; lpips needs VGG16."
)
@click.option("--weights", type=click.Path(path_type=Path), help="The distance's weights lie in this file.")
@click.option(
    "--crop", help="Crop images to center or a square such as 128x128, and resize them; else they have to fit."
)
@outdir_option
@device_option
def encode(
    network: Path,
    images: tuple[Path, ...],
    steps: int,
    loss: str,
    weights: Path | None,
    crop: str | None,
    outdir: Path,
    device: str,
) -> None:
    """Find the codes of real IMAGES: what the recogniser reads, refined by optimising codes and noise.

    NETWORK is a network file of this package or the folder of a run. The codes are written to encoded.safetensors, with
    which generate, traverse, edit and explore draw these images (--encoded), and what they give back to encoded.png.
    Images of attached generators are encoded by their own programs, such as projector.py.
    """
    import torch

    from ..attach import AttachedGenerator, DirectedGenerator
    from ..checkpoints.encodings import Encoding
    from ..checkpoints.opening import generator_name, open_networks, recognizer_of
    from ..checkpoints.snapshots import find_snapshot
    from ..images import save_png, to_network_range, to_uint8
    from ..metrics import make_distance
    from ..pictures.encoding import encode_images
    from ..pictures.sheet import check_cells, draw_sheet

    check_cells(len(images), 3)
    on = pick_device(device)
    networks = open_networks(find_snapshot(network))
    generator = networks[generator_name(networks)]
    if isinstance(generator, AttachedGenerator):
        raise click.UsageError(f"{network} holds a generator of another program, whose own projector encodes images")
    if isinstance(generator, DirectedGenerator):
        raise click.UsageError(f"{network} holds directions: encode by the network that they were found in")
    generator, recognizer = generator.to(on), recognizer_of(networks)
    if recognizer is None:
        click.echo(f"{network} holds no recogniser: refining starts at codes 0", err=True)
    else:
        recognizer = recognizer.to(on)
    pixels = torch.stack([_pixels(path, generator.img_channels, generator.img_resolution, crop) for path in images])
    distance = make_distance(loss, weights)
    parts = [
        encode_images(generator, recognizer, to_network_range(part).to(on), distance, steps)
        for part in pixels.split(_BATCH)
    ]
    outdir.mkdir(parents=True, exist_ok=True)
    noise = {name: torch.cat([part.noise[name] for part in parts]) for name in parts[0].noise}
    Encoding([path.name for path in images], torch.cat([part.codes for part in parts]), noise).save(outdir / _FILE)
    read, refined = (
        to_uint8(torch.cat(made)).cpu() for made in zip(*((p.read, p.refined) for p in parts), strict=True)
    )
    read_error, error = (
        torch.cat(errors).tolist() for errors in zip(*((p.read_error, p.refined_error) for p in parts), strict=True)
    )
    rows = torch.stack([pixels, read, refined], dim=1).expand(-1, -1, 3, -1, -1)
    labels = [
        f"{path.name}\n{before:.1f} to {after:.1f}"
        for path, before, after in zip(images, read_error, error, strict=True)
    ]
    title = "error: root of the mean square, in levels of 255, of what is read and what is refined"
    save_png(draw_sheet(rows, labels, ["image", "read", "refined"], title), outdir / "encoded.png")
    for index, (path, before, after) in enumerate(zip(images, read_error, error, strict=True)):
        click.echo(f"{index}: {path}, error {before:.1f} of 255 as read, {after:.1f} after {steps} steps")
    click.echo(f"{_FILE} and encoded.png in {outdir}")


def _pixels(path: Path, channels: int, resolution: int, crop: str | None) -> Tensor:
    """A picture as uint8 [C, H, W] of the size that a network makes."""
    import torch

    from .._optional import require
    from ..data.damage import named_if_damaged
    from ..data.formats.decoding import decode, parse_background, read_header
    from ..data.formats.resizing import crop_square, parse_crop, resize
    from ..files import read_file

    data = read_file(path)
    with named_if_damaged(path, "an image"), require("PIL.Image", "train").open(io.BytesIO(data)) as image:
        read_header(image)
        pixels = decode(image, channels, parse_background("white"))
    if crop is not None:
        pixels = resize(crop_square(pixels, parse_crop(crop)), resolution, "lanczos")
    height, width = pixels.shape[:2]
    if (height, width) != (resolution, resolution):
        raise click.UsageError(
            f"{path} has {width}x{height} pixels, the network makes {resolution}x{resolution}: --crop center cuts and "
            "resizes it"
        )
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
