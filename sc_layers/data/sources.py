"""From what a user writes after `--data` to a data set."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from .base import Dataset
from .formats import mnist
from .formats.image_files import FolderFiles, ImageFiles, ZipFiles
from .formats.tfrecords import TFRecordImages, tfrecord_file_in
from .rendered.dsprites import DSprites
from .rendered.shapes3d import Shapes3D

RENDERED: dict[str, type[Shapes3D] | type[DSprites]] = {"shapes3d": Shapes3D, "dsprites": DSprites}


def open_dataset(spec: str | os.PathLike[str], resolution: int | None = None, crop: str | None = None) -> Dataset:
    """Open a data set by name or path.

    Args:
        spec: `"shapes3d"` or `"dsprites"` (rendered); or the path of a folder of images, of a zip of images as StyleGAN
            uses it, of an MNIST idx-ubyte file (gzipped or not), or of a folder with such files, of which the training
            images are taken, or of a folder of TFRecords from the authors' program. A folder that is called like a
            rendered set is reached as `"./shapes3d"`.
        resolution: height and width; None means 64 for rendered sets and what the files have for others.
        crop: "celeba" for the aligned CelebA images of 178x218 pixels; a folder or zip only.

    Raises:
        FileNotFoundError: neither a known name nor an existing path.
        ImportError: Pillow, which reads image files, is missing.
        ValueError: the files are no images, are damaged or do not fit together or to the arguments.
    """
    name = os.fspath(spec)
    if name in RENDERED:
        _refuse_crop(name, crop)
        return RENDERED[name]() if resolution is None else RENDERED[name](resolution)
    path = Path(name).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"no data set {name!r}: expected {', '.join(RENDERED)}, or an existing folder, zip or idx-ubyte file"
        )
    try:
        return _open_path(path, resolution, crop)
    except PermissionError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def _open_path(path: Path, resolution: int | None, crop: str | None) -> Dataset:
    idx = mnist.image_file_in(path) if path.is_dir() else path if mnist.holds_idx(path, 3) else None
    if idx is not None:
        _refuse_crop(str(idx), crop)
        return mnist.IdxImages(idx, resolution)
    if path.is_dir() and tfrecord_file_in(path, resolution) is not None:
        _refuse_crop(str(path), crop)
        return TFRecordImages(path, resolution)
    if path.is_dir():
        return ImageFiles(FolderFiles(path), resolution, crop)
    if zipfile.is_zipfile(path):
        return ImageFiles(ZipFiles(path), resolution, crop)
    raise ValueError(f"{path} is neither a zip archive nor an idx-ubyte file of images")


def _refuse_crop(name: str, crop: str | None) -> None:
    if crop is not None:
        raise ValueError(f"crop={crop!r} is for image files of CelebA, not for {name}")
