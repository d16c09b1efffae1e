"""Cars3D: renderings of 183 car models, from the MATLAB files that Reed et al. (2015) publish.

Source: the archive `nips2015-analogy-data`, whose folder `cars` holds a file a car with the array `im`
[height, width, 3, azimuth, elevation].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..._optional import require
from ..base import Dataset, Pixels
from ..damage import named_if_damaged
from ..limits import MAX_TABLE_BYTES, check_size
from .resizing import resize

SUFFIX = ".mat"
ARRAY = "im"
DEFAULT_RESOLUTION = 64


def cars_in(folder: Path) -> list[Path]:
    """The MATLAB files of a folder, one a car."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_file())


def _read_car(path: Path) -> npt.NDArray[Any]:
    """Images [azimuth, elevation, H, W, 3] of a car.

    Raises:
        ValueError: the file is damaged or holds something else.
    """
    matlab = require("scipy.io", "data")
    with named_if_damaged(path, "a file of Cars3D"):
        shapes = {name: (shape, kind) for name, shape, kind in matlab.whosmat(path)}
        shape, kind = shapes.get(ARRAY, ((), "nothing"))
        if len(shape) != 5 or shape[2] != 3 or kind != "uint8":
            raise ValueError(f"it holds {kind} of shape {shape} under {ARRAY!r}, expected uint8 [H, W, 3, 24, 4]")
        check_size(int(np.prod(shape, dtype=np.float64)), MAX_TABLE_BYTES, path)
        images: npt.NDArray[Any] = matlab.loadmat(path, variable_names=[ARRAY])[ARRAY]
    return images.transpose(3, 4, 0, 1, 2)


class Cars3D(Dataset):
    """Cars3D: elevation, azimuth and model of a car; the published files have 4, 24 and 183 values.

    The images are held in memory. Other sizes than the stored one are resampled (Lanczos), as papers use 64 pixels.

    Args:
        folder: with the `.mat` files.
        resolution: height and width of the images; None means 64.

    Raises:
        ImportError: SciPy is missing, which reads the files.
        ValueError: there are no files; one is damaged, or has other numbers of views than the first.
    """

    num_channels = 3
    factor_names = ("elevation", "azimuth", "object_type")

    def __init__(self, folder: Path, resolution: int | None = None) -> None:
        self.name = str(folder)
        self.resolution = DEFAULT_RESOLUTION if resolution is None else resolution
        paths = cars_in(folder)
        if not paths:
            raise ValueError(f"{folder} holds no {SUFFIX} files of Cars3D")
        views: tuple[int, ...] = ()
        cars: list[Pixels] = []
        for path in paths:
            images = _read_car(path)
            if cars and images.shape[:2] != views:
                raise ValueError(f"{path} has {images.shape[:2]} views, expected {views} as in {paths[0].name}")
            views = images.shape[:2]
            cars += [resize(image, self.resolution, "lanczos") for image in images.reshape(-1, *images.shape[2:])]
        self._images = np.stack(cars)
        azimuths, elevations = views
        car, azimuth, elevation = np.unravel_index(np.arange(len(self)), (len(paths), azimuths, elevations))
        self.factors = np.stack([elevation, azimuth, car], axis=1)

    def __len__(self) -> int:
        return len(self._images)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        return torch.from_numpy(self._images[self._checked(indices)].transpose(0, 3, 1, 2).copy())
