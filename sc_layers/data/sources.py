"""From what a user writes after `--data` to a data set."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

from .base import Dataset, RenderedDataset
from .formats import arrays, cars3d, mnist, smallnorb
from .formats.files import Files, FolderFiles, LmdbFiles, ZipFiles
from .formats.image_files import ImageFiles, PictureFiles
from .formats.tfrecords import TFRecordImages, tfrecord_file_in
from .rendered.clevr import Clevr
from .rendered.dsprites import DSprites
from .rendered.shapes3d import Shapes3D

RENDERED: dict[str, type[RenderedDataset]] = {"shapes3d": Shapes3D, "dsprites": DSprites, "clevr": Clevr}
LMDB_FILE = "data.mdb"


def open_source(
    spec: str | os.PathLike[str],
    resolution: int | None = None,
    background: str = "white",
    skip_bad: bool = False,
) -> Dataset | PictureFiles:
    """Open a data set by name or path; picture files as they are, of any sizes.

    Args:
        spec: `"shapes3d"`, `"dsprites"` or `"clevr"` (rendered); or the path of a folder or zip of pictures; of an LMDB
            of rosinality's program; of an `.npz`, `.npy` or `.h5` file with images; of an MNIST idx-ubyte file (gzipped
            or not), or of a folder with such files, of which the training images are taken; of a folder of TFRecords
            from the authors' program; of a folder with the files of Cars3D or SmallNORB. A folder that is called like a
            rendered set is reached as `"./shapes3d"`.
        resolution: height and width; None means 64 for rendered sets, Cars3D and SmallNORB, and what the files have for
            others. Pictures in a folder or zip are not looked at for it.
        background: what transparent pixels of pictures show, `white`, `black` or `#rrggbb`.
        skip_bad: leave out pictures whose file cannot be read, instead of raising.

    Raises:
        FileNotFoundError: neither a known name nor an existing path.
        ImportError: a package that reads such files is missing.
        ValueError: the files are no images, are damaged or do not fit together or to the arguments.
    """
    name = os.fspath(spec)
    if resolution is not None and resolution < 1:
        raise ValueError(f"resolution must be at least 1, got {resolution}")
    if name in RENDERED:
        kind = RENDERED[name]
        return kind() if resolution is None else kind(resolution)  # type: ignore[call-arg]
    try:
        path = Path(name).expanduser()
        if not path.exists():
            raise FileNotFoundError(
                f"no data set {name!r}: expected {', '.join(RENDERED)}, or an existing folder, zip or file of images"
            )
        found = _folder_of_arrays(path, resolution) if path.is_dir() else _file_of_arrays(path, resolution)
        if found is not None:
            return found
        return PictureFiles(_picture_files(path, resolution), background, skip_bad)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError is what `~nobody` raises
        where = getattr(error, "filename", None) or name
        raise ValueError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _folder_of_arrays(path: Path, resolution: int | None) -> Dataset | None:
    """The data set in a folder that holds its images in a few large files; None for a folder of pictures."""
    idx = mnist.image_file_in(path)
    if idx is not None:
        return mnist.IdxImages(idx, resolution)
    if tfrecord_file_in(path, resolution) is not None:
        return TFRecordImages(path, resolution)
    if smallnorb.parts_in(path):
        return smallnorb.SmallNORB(path, resolution)
    if cars3d.cars_in(path):
        return cars3d.Cars3D(path, resolution)
    return None


def _file_of_arrays(path: Path, resolution: int | None) -> Dataset | None:
    """The data set in a file of images; None for an archive of pictures."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file")
    if path.suffix.lower() in arrays.SUFFIXES:
        return arrays.ArrayImages(path, resolution)
    return mnist.IdxImages(path, resolution) if mnist.holds_idx(path, 3) else None


def _picture_files(path: Path, resolution: int | None) -> Files:
    if path.is_dir():
        return LmdbFiles(path, resolution) if (path / LMDB_FILE).is_file() else FolderFiles(path)
    if zipfile.is_zipfile(path):
        return ZipFiles(path)
    if path.suffix == ".mdb":
        return LmdbFiles(path, resolution)
    raise ValueError(f"{path} is neither a zip archive nor an idx-ubyte, npz, npy or h5 file of images")


def open_dataset(
    spec: str | os.PathLike[str],
    resolution: int | None = None,
    crop: str | None = None,
    background: str = "white",
    skip_bad: bool = False,
) -> Dataset:
    """Open a data set of square images of one size, by name or path.

    Args:
        spec: see `open_source`.
        resolution: height and width; None means 64 for rendered sets, Cars3D and SmallNORB, and what the files have for
            others.
        crop: "celeba" for the aligned CelebA images of 178x218 pixels; pictures in files only.
        background: what transparent pixels of pictures show, `white`, `black` or `#rrggbb`.
        skip_bad: leave out pictures whose file cannot be read, instead of raising.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `open_source`; ValueError also for images of different sizes.
    """
    source = open_source(spec, resolution, background, skip_bad)
    if isinstance(source, PictureFiles):
        return ImageFiles(source, resolution, crop)
    if crop is not None:
        raise ValueError(f"crop={crop!r} is for image files of CelebA, not for {source.name}")
    return source
