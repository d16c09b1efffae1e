"""Images that lie as files in a folder, a zip or an LMDB, with the labels of a `dataset.json` if there is one."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..._optional import require
from ..base import Dataset, Pixels
from ..damage import named_if_damaged
from ..limits import MAX_SIDE
from .decoding import Header, decode, parse_background, read_header
from .files import LABEL_FILE, Files
from .labels import read_labels
from .resizing import CELEBA_CROP, CELEBA_SIZE, crop_square

if TYPE_CHECKING:
    from PIL.Image import Image


def counted(number: int, what: str) -> str:
    """A number of things of the kind `what` in words, such as "1 file" or "2 files"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class PictureFiles:
    """Picture files of any sizes, decoded on request.

    The headers of all files are read at once, so that a file that is no picture is named before anything starts. The
    pictures are grey if all files are, else RGB. Hidden files are left out; the order is that of sorted names.

    Attributes:
        headers: the pictures' headers, in the pictures' order.
        damaged: what is wrong with the files that were left out for it, by name.
        num_channels: 1 (grey) or 3 (RGB).

    Args:
        files: where they lie.
        background: what transparent pixels show, `white`, `black` or `#rrggbb`.
        skip_bad: leave out files whose header cannot be read, instead of raising.

    Raises:
        ImportError: Pillow is missing.
        ValueError: there is no picture, or one that cannot be read.
    """

    def __init__(self, files: Files, background: str = "white", skip_bad: bool = False) -> None:
        require("PIL.Image", "train")
        self.files = files
        self.background = background
        self._colour = parse_background(background)
        self.damaged: dict[str, str] = {}
        headers = {name: header for name in files.names() if (header := self._try_header(name, skip_bad)) is not None}
        if not headers:
            raise ValueError(f"{files.path} holds no images that Pillow reads, such as .png or .jpg{self._left_out()}")
        self.names = list(headers)
        self.headers = list(headers.values())
        self._has_alpha = any(header.has_alpha for header in self.headers)
        tinted = self._has_alpha and len(set(self._colour)) > 1
        self.num_channels = 1 if all(header.is_grey for header in self.headers) and not tinted else 3

    @property
    def name(self) -> str:
        """The folder or archive."""
        return str(self.files.path)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told of these files, a line each."""
        notes = []
        if self.files.left_out:
            notes.append(f"{counted(len(self), 'image')}{self._left_out()}")
        if self.damaged:
            notes.append(f"{counted(len(self.damaged), 'damaged file')} left out: {'; '.join(self.damaged.values())}")
        if self._has_alpha:
            count = sum(header.has_alpha for header in self.headers)
            notes.append(f"{count} of {counted(len(self), 'image')} with an alpha channel, shown on {self.background}")
        return tuple(notes)

    def _left_out(self) -> str:
        left_out = self.files.left_out
        reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.most_common())
        return f", {counted(left_out.total(), 'file')} left out: {reasons}" if left_out else ""

    def _try_header(self, name: str, skip_bad: bool) -> Header | None:
        try:
            with self._opened(name) as image:
                return read_header(image)
        except ValueError as error:
            if not skip_bad:
                raise
            self.damaged[name] = str(error)
            return None

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Image]:
        """Open an image file; what goes wrong while it is open is told with its name."""
        pillow = require("PIL.Image", "train")
        where = self.files.path / name
        with named_if_damaged(where, "an image"), self.files.open(name) as file, pillow.open(file) as image:
            yield image

    def __len__(self) -> int:
        return len(self.names)

    def picture_name(self, index: int) -> str:
        """Path of the picture with this index."""
        return str(self.files.path / self.names[index])

    def picture(self, index: int) -> Pixels:
        """Pixels [H, W, C] of the picture with this index.

        Raises:
            ValueError: its file is damaged.
        """
        with self._opened(self.names[index]) as image:
            return decode(image, self.num_channels, self._colour)

    @functools.cached_property
    def labels(self) -> npt.NDArray[Any] | None:
        """Labels from the `dataset.json`, see `read_labels`; None where there is none."""
        return read_labels(self.files, self.names) if self.files.has_labels else None


class ImageFiles(Dataset):
    """Square images of one size from the files of any format that Pillow reads, decoded on request.

    Args:
        pictures: the files.
        resolution: height and width that every image must have; None takes those of the first.
        crop: "celeba" cuts rows 57 to 184 and columns 25 to 152 out of images of 178x218 pixels, as the authors do.

    Raises:
        ValueError: an image is not square or of another size.
    """

    decodes = True

    def __init__(self, pictures: PictureFiles, resolution: int | None = None, crop: str | None = None) -> None:
        if crop not in (None, "celeba"):
            raise ValueError(f'crop must be "celeba" or None, got {crop!r}')
        if crop and resolution not in (None, CELEBA_CROP):
            raise ValueError(f"the celeba crop has {CELEBA_CROP}x{CELEBA_CROP} pixels, got resolution {resolution}")
        self._pictures = pictures
        self.name = pictures.name
        self.crop = crop
        self.num_channels = pictures.num_channels
        self.resolution = CELEBA_CROP if crop else resolution or pictures.headers[0].width
        self._check_sizes()
        self.notes = pictures.notes
        self.label_file = LABEL_FILE if pictures.files.has_labels else None

    def _check_sizes(self) -> None:
        expected = CELEBA_SIZE if self.crop else (self.resolution, self.resolution)
        if self.resolution > MAX_SIDE:
            raise ValueError(
                f"{self.name} has images of {self.resolution} pixels, expected at most {MAX_SIDE}{self._hint()}"
            )
        for index, header in enumerate(self._pictures.headers):
            size = (header.width, header.height)
            if size != expected:
                where = self._pictures.picture_name(index)
                hint = self._hint(size)
                raise ValueError(f"{where} has {size[0]}x{size[1]} pixels, expected {expected[0]}x{expected[1]}{hint}")

    def _hint(self, size: tuple[int, int] | None = None) -> str:
        """What to do about sizes that do not fit."""
        if self.crop:
            return ""
        if size == CELEBA_SIZE:
            return ": for aligned CelebA images give --crop celeba (crop='celeba')"
        return f": make the sizes equal with {conversion_command(self.name, self.resolution)}"

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        return self._pictures.labels

    def __len__(self) -> int:
        return len(self._pictures)

    def picture_name(self, index: int) -> str:
        return self._pictures.picture_name(index)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        checked = self._checked(indices)
        images = np.empty((len(checked), self.num_channels, self.resolution, self.resolution), np.uint8)
        for image, index in zip(images, checked, strict=True):
            image[:] = self._decode(int(index)).transpose(2, 0, 1)
        return torch.from_numpy(images)

    def _decode(self, index: int) -> Pixels:
        """Pixels [R, R, C] of one file."""
        pixels = self._pictures.picture(index)
        expected = CELEBA_SIZE if self.crop else (self.resolution, self.resolution)
        if pixels.shape[1::-1] != expected:
            raise ValueError(
                f"{self.picture_name(index)} has {pixels.shape[1]}x{pixels.shape[0]} pixels, its header told "
                f"{expected[0]}x{expected[1]}"
            )
        return crop_square(pixels, self.crop)


def conversion_command(source: str, resolution: int) -> str:
    """The command that gives the images of a data set one square size, a power of two.

    Args:
        source: what the user calls the data set.
        resolution: height and width that are wanted, rounded down to a size that networks have.
    """
    rounded = max(4, min(1024, 1 << (max(resolution, 1).bit_length() - 1)))
    return f"`sc-layers dataset convert {shlex.quote(source)} OUT.zip --crop center --resolution {rounded}`"
