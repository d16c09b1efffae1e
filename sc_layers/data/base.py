"""What every data set offers, and what the rendered ones add: exact factors of variation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


class Source(Protocol):
    """What has pictures one by one: every data set, and picture files of any sizes."""

    @property
    def name(self) -> str:
        """The folder, file or name that the user gave."""

    @property
    def num_channels(self) -> int:
        """1 (grey) or 3 (RGB), of all pictures."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told of how the files were read, a line each."""

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        """What the files say of each picture, [N] int64 or [N, L] float32, or None."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Pixels:
        """Pixels [H, W, C] of the picture with this index."""

    def picture_name(self, index: int) -> str:
        """What messages call the picture with this index."""


class Dataset(ABC):
    """A finite set of square images of one size, addressed by index. It can be pickled: a worker opens files anew.

    Attributes:
        name: what the user asked for.
        resolution: height and width of the images in pixels.
        num_channels: 1 (grey) or 3 (RGB).
        factors: values [N, F] of the factors of variation, one row an image, as the files give them; or None.
        factor_names: names of the F factors, empty where nobody gives them.
        decodes: whether images are decoded from files on request, which is worth doing ahead in processes.
        notes: what a user should be told of how the files were read, a line each.
        label_file: name of the file of labels beside the images, which is read when `labels` are asked for; or None.
    """

    name: str
    resolution: int
    num_channels: int
    factors: npt.NDArray[Any] | None = None
    factor_names: tuple[str, ...] = ()
    decodes: bool = False
    notes: tuple[str, ...] = ()
    label_file: str | None = None

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        """What the files say of each image, [N] int64 or [N, L] float32, or None; read when it is asked for.

        Raises:
            ValueError: the labels are damaged or do not fit the images.
        """
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        """The images of these indices.

        Args:
            indices: integers [B] in [0, len).

        Returns:
            uint8 [B, C, H, W].

        Raises:
            IndexError: an index is out of range.
        """

    def picture(self, index: int) -> Pixels:
        """The image with this index as pixels [H, W, C]."""
        pixels: Pixels = self.images_at([index])[0].permute(1, 2, 0).numpy()
        return pixels

    def picture_name(self, index: int) -> str:
        """What messages call the image with this index."""
        return f"image {index} of {self.name}"

    def _checked(self, indices: npt.ArrayLike) -> IntArray:
        array = np.asarray(indices)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"indices must be integers [B], got {array.dtype} of shape {array.shape}")
        if array.size and (array.min() < 0 or array.max() >= len(self)):
            raise IndexError(f"indices {array.min()} to {array.max()} do not fit {self.name} with {len(self)} images")
        return array.astype(np.int64)

    def __repr__(self) -> str:
        size = f"{self.num_channels}x{self.resolution}x{self.resolution}"
        return f"{type(self).__name__}({self.name!r}, {len(self)} images of {size})"


class RenderedDataset(Dataset):
    """All combinations of some factors of variation, rendered on request; the last factor runs fastest.

    Attributes:
        factor_sizes: number of values of each of the F factors.
    """

    factor_sizes: tuple[int, ...]

    @abstractmethod
    def images(self, factors: npt.ArrayLike) -> Tensor:
        """Render images.

        Args:
            factors: integers [B, F]; column f is in [0, factor_sizes[f]).

        Returns:
            uint8 [B, C, H, W].

        Raises:
            TypeError: not integers [B, F].
            ValueError: a value is out of range.
        """

    def __len__(self) -> int:
        return int(np.prod(self.factor_sizes))

    def factors_of(self, indices: npt.ArrayLike) -> IntArray:
        """Factors [B, F] of the images with indices [B]."""
        return np.stack(np.unravel_index(self._checked(indices), self.factor_sizes), axis=1)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        return self.images(self.factors_of(indices))

    def sample_factors(self, batch: int, generator: torch.Generator) -> IntArray:
        """Factors [batch, F] of images that `generator` draws uniformly."""
        indices: IntArray = torch.randint(len(self), (batch,), generator=generator).numpy()
        return self.factors_of(indices)

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Images that `generator` draws uniformly, uint8 [batch, C, H, W]."""
        return self.images(self.sample_factors(batch, generator))

    def _checked_factors(self, factors: npt.ArrayLike) -> IntArray:
        array = np.asarray(factors)
        if array.ndim != 2 or array.shape[1] != len(self.factor_sizes) or not np.issubdtype(array.dtype, np.integer):
            raise TypeError(
                f"factors of {self.name} must be integers [B, {len(self.factor_sizes)}] "
                f"({', '.join(self.factor_names)}), got {array.dtype} of shape {array.shape}"
            )
        wrong = (array < 0) | (array >= np.array(self.factor_sizes))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{self.factor_names[column]} of {self.name} must lie in 0 to {self.factor_sizes[column] - 1}, "
                f"got {array[row, column]}"
            )
        return array.astype(np.int64)
