from __future__ import annotations

import os
from pathlib import Path

import pytest

from sc_layers.data import Clevr, DSprites, IdxImages, ImageFiles, Shapes3D, open_dataset
from tests.data.files import idx_bytes, random_pixels, write_pngs, zip_folder


@pytest.mark.parametrize(("name", "kind"), [("shapes3d", Shapes3D), ("dsprites", DSprites), ("clevr", Clevr)])
def test_rendered_sets_are_opened_by_name(name: str, kind: type) -> None:
    assert type(open_dataset(name)) is kind
    assert open_dataset(name).resolution == 64
    assert open_dataset(name, 32).resolution == 32


def test_a_folder_of_images_is_opened(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    data = open_dataset(str(tmp_path), 8)
    assert isinstance(data, ImageFiles)
    assert data.name == str(tmp_path)


def test_a_zip_is_opened_whatever_its_name(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images", random_pixels(2))
    assert isinstance(open_dataset(zip_folder(tmp_path / "images", tmp_path / "images.dat")), ImageFiles)


def test_an_idx_file_and_its_folder_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx_bytes(random_pixels(2, size=28, channels=1)))
    for spec in (path, tmp_path):
        data = open_dataset(spec)
        assert isinstance(data, IdxImages)
        assert data.resolution == 32


def test_a_folder_called_like_a_rendered_set_is_reached_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pngs(tmp_path / "shapes3d", random_pixels(2))
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("./shapes3d")) == 2
    assert len(open_dataset("shapes3d")) == 480_000


def test_a_name_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data set '.*absent': expected shapes3d, dsprites, clevr, or"):
        open_dataset(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"some text", b"\x1f\x8bxx"])
def test_a_file_that_is_no_data_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes").write_bytes(content)
    with pytest.raises(ValueError, match="notes is neither a zip archive nor an idx-ubyte, npz, npy or h5 file"):
        open_dataset(tmp_path / "notes")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be read: Permission denied"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("spec", ["~nobody-of-that-name/images", "a" * 300])
def test_paths_that_cannot_be_are_one_error(spec: str) -> None:
    with pytest.raises(ValueError, match=f"{spec[:20]}.* cannot be read: "):
        open_dataset(spec)


@pytest.mark.parametrize(
    "name", ["pipe.zip", "pipe.npz", "folder/toy-r03.tfrecords", "folder/smallnorb-training-dat.mat", "folder/a.mat"]
)
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / name)
    path = tmp_path / "folder" if "/" in name else tmp_path / name
    with pytest.raises(ValueError, match=r"is no regular file|no regular file \(1\)"):
        open_dataset(path)


def test_only_image_files_are_cropped(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx_bytes(random_pixels(2, channels=1)))
    for spec in ("dsprites", path):
        with pytest.raises(ValueError, match=r"crop='celeba' is for image files of CelebA, not for"):
            open_dataset(spec, crop="celeba")
