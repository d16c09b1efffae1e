"""Data sets: 3D Shapes and dSprites rendered on request, folders, zips and MNIST files."""

from .base import Dataset as Dataset
from .base import RenderedDataset as RenderedDataset
from .batching import batch_at as batch_at
from .batching import batches as batches
from .formats.image_files import ImageFiles as ImageFiles
from .formats.mnist import IdxImages as IdxImages
from .formats.tfrecords import TFRecordImages as TFRecordImages
from .rendered.dsprites import DSprites as DSprites
from .rendered.shapes3d import Shapes3D as Shapes3D
from .sources import open_dataset as open_dataset

__all__ = [
    "DSprites",
    "Dataset",
    "IdxImages",
    "ImageFiles",
    "RenderedDataset",
    "Shapes3D",
    "TFRecordImages",
    "batch_at",
    "batches",
    "open_dataset",
]
