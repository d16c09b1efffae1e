"""The factors of MPI3D, whose files hold the images of a full grid in its order and nothing else.

Source: the description that its authors (Gondal et al., 2019) publish beside the files.
"""

from __future__ import annotations

import math

import numpy as np

from ..base import IntArray

MPI3D_FACTORS = (
    "object_color",
    "object_shape",
    "object_size",
    "camera_height",
    "background_color",
    "horizontal_axis",
    "vertical_axis",
)
# Of the published files, and of those of the NeurIPS 2019 challenge; the last factor runs fastest.
GRIDS = ((6, 6, 2, 3, 3, 40, 40), (4, 4, 2, 3, 3, 40, 40))


def mpi3d_factors(num_images: int) -> IntArray | None:
    """Factor indices [N, 7] of a file of `num_images` images; None where no grid of MPI3D has that many."""
    for sizes in GRIDS:
        if num_images == math.prod(sizes):
            return np.stack(np.unravel_index(np.arange(num_images), sizes), axis=1)
    return None
