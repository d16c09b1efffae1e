"""Data sets: rendered on request, folders and archives of pictures, and the files of published sets."""

from .base import Dataset as Dataset
from .base import RenderedDataset as RenderedDataset
from .batches import batch_at as batch_at
from .batches import batches as batches
from .formats.arrays import ArrayImages as ArrayImages
from .formats.cars3d import Cars3D as Cars3D
from .formats.image_files import ImageFiles as ImageFiles
from .formats.image_files import PictureFiles as PictureFiles
from .formats.mnist import IdxImages as IdxImages
from .formats.smallnorb import SmallNORB as SmallNORB
from .formats.tfrecords import TFRecordImages as TFRecordImages
from .rendered.clevr import Clevr as Clevr
from .rendered.dsprites import DSprites as DSprites
from .rendered.shapes3d import Shapes3D as Shapes3D
from .sources import open_dataset as open_dataset
from .sources import open_source as open_source

__all__ = [
    "ArrayImages",
    "Cars3D",
    "Clevr",
    "DSprites",
    "Dataset",
    "IdxImages",
    "ImageFiles",
    "PictureFiles",
    "RenderedDataset",
    "Shapes3D",
    "SmallNORB",
    "TFRecordImages",
    "batch_at",
    "batches",
    "open_dataset",
    "open_source",
]
