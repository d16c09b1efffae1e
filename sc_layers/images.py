"""Pictures: value ranges, grids, code traversals, PNG and GIF files."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._optional import require
from .files import write_file

WHITE = 255


def to_uint8(images: Tensor) -> Tensor:
    """Images as bytes: `rint(x * 127.5 + 127.5)`, clamped.

    Args:
        images: values in [-1, 1], of any shape.

    Returns:
        uint8, same shape.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 1.5]))
    tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def to_network_range(images: Tensor) -> Tensor:
    """Bytes as images in [-1, 1]: `x * 2 / 255 - 1`.

    Args:
        images: uint8, of any shape.

    Returns:
        float32, same shape.

    >>> to_network_range(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return images.to(torch.float32) * (2 / 255) - 1


def check_images(images: Any, codes: Tensor) -> Tensor:
    """What a generator returned, if that is finite images of its codes.

    Args:
        images: what came back; expected are images [B, C, H, W].
        codes: the codes [B, K] that went in.

    Returns:
        `images`.

    Raises:
        ValueError: no tensor, another shape, or values that are not finite; the first codes that gave such are named.
    """
    expected = f"expected images [{len(codes)}, C, H, W] for codes {tuple(codes.shape)}"
    if not isinstance(images, Tensor):
        raise ValueError(f"the generator returned {type(images).__name__}, {expected}")
    if images.ndim != 4 or len(images) != len(codes):
        raise ValueError(f"the generator returned shape {tuple(images.shape)}, {expected}")
    broken = ~images.flatten(1).isfinite().all(dim=1).cpu()
    if broken.any():
        first = [round(value, 3) for value in codes[broken][0].tolist()]
        raise ValueError(
            f"the generator returned {int(broken.sum())} of {len(codes)} images with values that are not finite, "
            f"first for the codes {first}"
        )
    return images


def image_grid(images: Tensor, columns: int, outline: bool = True) -> Tensor:
    """Lay images out in rows.

    Args:
        images: uint8 [N, C, H, W], N a multiple of `columns`.
        columns: images a row.
        outline: paint each image's outermost pixels white, so that neighbours can be told apart.

    Returns:
        uint8 [C, N / columns * H, columns * W].

    Raises:
        ValueError: N is no multiple of `columns`, or the images are not uint8.

    Source: SPEC, traversal grids of the authors' program.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 [N, C, H, W], got {images.dtype} {tuple(images.shape)}")
    if columns < 1 or len(images) % columns:
        raise ValueError(f"{len(images)} images do not fill rows of {columns}")
    if outline:
        images = images.clone()
        images[..., [0, -1], :] = WHITE
        images[..., [0, -1]] = WHITE
    _, channels, height, width = images.shape
    grid = images.view(-1, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, -1, columns * width)


def shown_masks(masks: Tensor) -> Tensor:
    """Masks as pictures show them, on one scale for all: black is 0, white is 1, brightness the square root.

    So masks of different codes and pictures can be compared, and faint ones still be seen.

    Args:
        masks: in [0, 1], of any shape.

    Returns:
        Brightness in [0, 1], same shape.
    """
    return masks.clamp(0, 1).sqrt()


def _as_pil_array(image: Tensor) -> np.ndarray:
    array = image.cpu().numpy()
    return array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)


def png_bytes(image: Tensor) -> bytes:
    """A picture as the bytes of a PNG.

    Args:
        image: uint8 [C, H, W], C = 1 or 3.

    Raises:
        ImportError: pillow is missing.
    """
    buffer = io.BytesIO()
    require("PIL.Image", "train").fromarray(_as_pil_array(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(image: Tensor, path: str | Path) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        image: uint8 [C, H, W], C = 1 or 3.
        path: the file, in a folder that exists.

    Raises:
        ImportError: pillow is missing.
        WriteError: see `files.write_file`.
    """
    write_file(path, png_bytes(image))


def gif_bytes(frames: list[Tensor], milliseconds: int = 120) -> bytes:
    """Pictures as the bytes of an endless GIF.

    Args:
        frames: uint8 [C, H, W] each, C = 1 or 3.
        milliseconds: how long each frame is shown.

    Raises:
        ImportError: pillow is missing.
    """
    buffer = io.BytesIO()
    pictures = [require("PIL.Image", "train").fromarray(_as_pil_array(frame)) for frame in frames]
    options = {"save_all": True, "append_images": pictures[1:], "duration": milliseconds, "loop": 0}
    pictures[0].save(buffer, format="GIF", **options)
    return buffer.getvalue()


def save_gif(frames: list[Tensor], path: str | Path, milliseconds: int = 120) -> None:
    """Write pictures as an endless GIF, whole or not at all.

    Args:
        frames: uint8 [C, H, W] each, C = 1 or 3.
        path: the file, in a folder that exists.
        milliseconds: how long each frame is shown.

    Raises:
        ImportError: pillow is missing.
        WriteError: see `files.write_file`.
    """
    write_file(path, gif_bytes(frames, milliseconds))


def save_mp4(frames: list[Tensor], path: str | Path, milliseconds: int = 120, repeats: int = 4) -> None:
    """Write pictures as an MP4 (H.264), whole or not at all.

    Args:
        frames: uint8 [C, H, W] each, C = 1 or 3. An odd row or column at the end is doubled: the format has even sizes.
        path: the file, in a folder that exists.
        milliseconds: how long each frame is shown.
        repeats: how often the film is played.

    Raises:
        ImportError: PyAV is missing.
        WriteError: see `files.write_file`.
    """
    av = require("av", "video")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1000, milliseconds))
        height, width = frames[0].shape[1:]
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        for frame in frames * repeats:
            padded = torch.nn.functional.pad(frame[None].float(), (0, width % 2, 0, height % 2), mode="replicate")[0]
            pixels = padded.to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    write_file(path, buffer.getbuffer())


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure of matplotlib, whole or not at all.

    Args:
        figure: a `matplotlib.figure.Figure`.
        path: the file, in a folder that exists; its extension names the format, PNG where there is none.

    Raises:
        ValueError: matplotlib does not know the format.
        WriteError: see `files.write_file`.
    """
    write_file(path, figure_bytes(figure, Path(path).suffix[1:] or "png"))


def figure_image(figure: Any) -> Tensor:
    """A figure of matplotlib as a picture.

    Args:
        figure: a `matplotlib.figure.Figure`.

    Returns:
        uint8 [3, H, W].

    Raises:
        ImportError: pillow is missing.
    """
    image = require("PIL.Image", "train").open(io.BytesIO(figure_bytes(figure))).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def figure_bytes(figure: Any, kind: str = "png", dpi: int = 120) -> bytes:
    """A figure of matplotlib as the bytes of a file.

    Args:
        figure: a `matplotlib.figure.Figure`.
        kind: the file's format, such as "png", "svg" or "pdf".
        dpi: pixels an inch.

    Raises:
        ValueError: matplotlib does not know the format.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, bbox_inches="tight", dpi=dpi)
    return buffer.getvalue()
