from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sc_layers.data import open_dataset
from sc_layers.data.formats import files
from sc_layers.data.formats.files import FolderFiles, ZipFiles, picture_suffixes
from tests.data.files import random_pixels, write_pngs, zip_folder
from tests.tolerances import LOSSY_LEVELS


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "jfif", "bmp", "webp", "tif", "gif", "tga", "ppm", "jp2", "pcx"])
def test_all_that_pillow_opens_is_a_picture(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / f"image.{suffix}")
    np.testing.assert_allclose(open_dataset(tmp_path).picture(0)[4, 4], [200, 100, 50], atol=LOSSY_LEVELS)


@pytest.mark.parametrize("suffix", [".eps", ".ps", ".mpg", ".h5", ".wmf", ".txt"])
def test_what_pillow_only_recognises_or_runs_a_program_for_is_none(suffix: str) -> None:
    assert suffix not in picture_suffixes()


def test_what_is_no_picture_is_counted_by_its_reason(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    for name in ("._000.png", "notes.txt", "__MACOSX/000.png", ".cache/000.png", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent.png")
    found = FolderFiles(tmp_path)
    assert found.names() == ["000.png", "001.png"]
    assert found.left_out == {"hidden": 3, ".txt": 1, "without suffix": 1, "no regular file": 2}


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    write_pngs(tmp_path / "elsewhere", random_pixels(2))
    root = tmp_path / "root"
    write_pngs(root / "real", random_pixels(1))
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "real")
    (root / "real" / "loop").symlink_to(root)
    assert FolderFiles(root).names() == ["a/000.png", "a/001.png", "real/000.png"]


def test_a_linked_picture_is_a_picture(tmp_path: Path) -> None:
    (target,) = write_pngs(tmp_path / "elsewhere", random_pixels(1))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.png").symlink_to(target)
    assert FolderFiles(tmp_path / "root").names() == ["link.png"]


def test_a_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"images\.zip cannot be read as a zip archive"):
        ZipFiles(tmp_path / "images.zip")


def test_a_zip_that_was_sent_to_another_process_is_opened_again(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images", random_pixels(2))
    found = ZipFiles(zip_folder(tmp_path / "images", tmp_path / "images.zip"))
    with pickle.loads(pickle.dumps(found)).open("001.png") as copied, found.open("001.png") as original:
        assert copied.read() == original.read()


@pytest.mark.parametrize("zipped", [False, True])
def test_files_too_large_for_a_picture_are_not_read(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pngs(tmp_path / "images", random_pixels(1))
    source = zip_folder(tmp_path / "images", tmp_path / "images.zip", 8) if zipped else tmp_path / "images"
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match=r"000\.png holds \d+ bytes, more than the 100"):
        open_dataset(source)


class TestLmdb:
    """The databases of rosinality's `prepare_data.py`."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        lmdb = pytest.importorskip("lmdb")
        folder = tmp_path / "faces.lmdb"
        environment = lmdb.open(str(folder))
        with environment.begin(write=True) as writing:
            for size in (4, 8):
                for index, path in enumerate(write_pngs(tmp_path / str(size), random_pixels(3, size))):
                    writing.put(f"{size}-{index:05}".encode(), path.read_bytes())
            writing.put(b"length", b"3")
        environment.close()
        return folder

    @pytest.mark.parametrize(("resolution", "size"), [(None, 8), (4, 4), (8, 8)])
    def test_pictures_of_one_size_are_read(self, database: Path, resolution: int | None, size: int) -> None:
        data = open_dataset(database, resolution)
        assert (len(data), data.resolution) == (3, size)
        assert (data.images_at([2, 0]).permute(0, 2, 3, 1).numpy() == random_pixels(3, size)[[2, 0]]).all()

    def test_a_size_that_it_lacks_is_refused(self, database: Path) -> None:
        with pytest.raises(ValueError, match=r"has pictures of 4, 8 pixels, not of 16"):
            open_dataset(database, 16)

    def test_a_file_that_is_none_is_named(self, tmp_path: Path) -> None:
        pytest.importorskip("lmdb")
        (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
        with pytest.raises(ValueError, match="cannot be read as an LMDB"):
            open_dataset(tmp_path)
