from __future__ import annotations

import json
import multiprocessing
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sc_layers.data import Dataset, PictureFiles, open_dataset, open_source
from sc_layers.data.converting import convert, make_recipe
from tests.data.files import idx_bytes, random_pixels, write_labels, write_pngs, zip_folder

PIXELS = random_pixels(5)
DESTINATIONS = pytest.mark.parametrize("name", ["out.zip", "out"])


def _convert(source: Path | str | Dataset | PictureFiles, destination: Path, **options: Any) -> list[str]:
    """Convert everything; what was damaged."""
    opened = source if isinstance(source, (Dataset, PictureFiles)) else open_source(source)
    recipe = make_recipe(
        opened, options.pop("resolution", None), options.pop("crop", None), options.pop("kind", "lanczos"), "white"
    )
    (*_, last) = convert(opened, destination, recipe, **{"workers": 0, **options})
    assert last.done == len(opened)
    return list(last.damaged)


def _pixels(path: Path) -> np.ndarray:
    """[N, H, W, C] of a converted set."""
    data = open_dataset(path)
    return data.images_at(range(len(data))).permute(0, 2, 3, 1).numpy()


def _label_file(path: Path) -> Any:
    if path.is_dir():
        return json.loads((path / "dataset.json").read_text())
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("dataset.json"))


def _folder(folder: Path) -> Path:
    write_pngs(folder / "images", PIXELS)
    return folder / "images"


def _zip(folder: Path) -> Path:
    return zip_folder(_folder(folder), folder / "images.zip")


def _npz(folder: Path) -> Path:
    np.savez(folder / "images.npz", images=PIXELS)
    return folder / "images.npz"


def _h5(folder: Path) -> Path:
    with pytest.importorskip("h5py").File(folder / "images.h5", "w") as file:
        file["images"] = PIXELS
    return folder / "images.h5"


def _lmdb(folder: Path) -> Path:
    environment = pytest.importorskip("lmdb").open(str(folder / "lmdb"))
    with environment.begin(write=True) as writing:
        for index, path in enumerate(write_pngs(folder / "pngs", PIXELS)):
            writing.put(f"8-{index:05}".encode(), path.read_bytes())
    environment.close()
    return folder / "lmdb"


@DESTINATIONS
@pytest.mark.parametrize("written", [_folder, _zip, _npz, _h5, _lmdb])
def test_every_source_keeps_its_pixels(tmp_path: Path, written: Any, name: str) -> None:
    _convert(written(tmp_path), tmp_path / name)
    np.testing.assert_array_equal(_pixels(tmp_path / name), PIXELS)


def test_digits_and_records_keep_their_pixels_and_labels(tmp_path: Path) -> None:
    digits = random_pixels(3, size=32, channels=1)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(digits))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.uint8([3, 1, 4])))
    source = open_source(tmp_path)
    _convert(source, tmp_path / "digits.zip", labels=source.labels)
    np.testing.assert_array_equal(_pixels(tmp_path / "digits.zip")[..., 0], digits)
    assert open_dataset(tmp_path / "digits.zip").labels.tolist() == [3, 1, 4]
    records = open_source(Path(__file__).parent / "reference" / "tfr_toy")
    _convert(records, tmp_path / "records", labels=records.labels)
    np.testing.assert_array_equal(_pixels(tmp_path / "records")[3].transpose(2, 0, 1), records.images_at([3])[0])
    np.testing.assert_array_equal(open_dataset(tmp_path / "records").labels, records.labels)


def test_a_zip_has_the_layout_of_stylegans_programs(tmp_path: Path) -> None:
    _convert(_folder(tmp_path), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    assert names == ["convert.json", *[f"00000/img{index:08}.png" for index in range(5)], "dataset.json"]
    assert _label_file(tmp_path / "out.zip") == {"labels": None}
    assert open_dataset(tmp_path / "out.zip").notes == ()


def test_there_and_back_is_the_same(tmp_path: Path) -> None:
    write_labels(_folder(tmp_path), [[f"{index:03}.png", index] for index in range(5)])
    labels = open_source(tmp_path / "images").labels
    _convert(tmp_path / "images", tmp_path / "out.zip", labels=labels)
    _convert(tmp_path / "out.zip", tmp_path / "back", labels=open_source(tmp_path / "out.zip").labels)
    np.testing.assert_array_equal(_pixels(tmp_path / "back"), PIXELS)
    assert open_dataset(tmp_path / "back").labels.tolist() == [0, 1, 2, 3, 4]


def test_pictures_of_many_sizes_become_one(tmp_path: Path) -> None:
    for number, size in enumerate([(40, 60), (90, 32), (32, 32)]):
        Image.new("RGB", size, (10 * number, 0, 0)).save(tmp_path / f"{number}.png")
    _convert(tmp_path, tmp_path / "out" / "a.zip", resolution=16, crop="center", kind="box")
    pixels = _pixels(tmp_path / "out" / "a.zip")
    assert pixels.shape == (3, 16, 16, 3)
    assert (pixels[..., 0] == np.array([0, 10, 20])[:, None, None]).all()


def test_faces_of_celeba_are_cut_as_the_authors_do(tmp_path: Path) -> None:
    rows, columns = np.indices((218, 178), np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], -1)).save(tmp_path / "face.png")
    _convert(tmp_path, tmp_path / "out.zip", crop="celeba")
    face = _pixels(tmp_path / "out.zip")[0]
    assert (face[0, 0, 0], face[-1, -1, 0], face[0, 0, 1], face[-1, -1, 1]) == (57, 184, 25, 152)


def test_sizes_that_differ_need_a_resolution(tmp_path: Path) -> None:
    for size in (8, 16):
        Image.new("L", (size, size)).save(tmp_path / f"{size:02}.png")
    with pytest.raises(ValueError, match=r"16\.png gives 16x16 pixels, .*08\.png 8x8: give --resolution"):
        _convert(tmp_path, tmp_path / "out.zip")


def test_a_picture_that_does_not_suit_the_crop_is_named_before_anything_is_written(tmp_path: Path) -> None:
    _folder(tmp_path)
    with pytest.raises(ValueError, match=r"000\.png cannot be cut: it has 8x8 pixels, too few for a crop of 9x9"):
        _convert(tmp_path / "images", tmp_path / "out.zip", crop=9)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("resolution", [0, 5000])
def test_resolutions_out_of_range_are_refused(tmp_path: Path, resolution: int) -> None:
    with pytest.raises(ValueError, match=f"resolution must lie in 1 to 4096, got {resolution}"):
        _convert(_folder(tmp_path), tmp_path / "out.zip", resolution=resolution)


@DESTINATIONS
def test_an_interrupted_conversion_goes_on_where_it_ended(tmp_path: Path, name: str) -> None:
    source = open_source(_folder(tmp_path))
    recipe = make_recipe(source, None, None, "lanczos", "white")
    _convert(source, tmp_path / f"whole-{name}")
    steps = convert(source, tmp_path / name, recipe, workers=0)
    assert [next(steps).done for _ in range(4)] == [0, 1, 2, 3]
    steps.close()
    assert not (tmp_path / name / "dataset.json").exists()
    assert [step.done for step in convert(source, tmp_path / name, recipe, workers=0)] == [3, 4, 5]
    np.testing.assert_array_equal(_pixels(tmp_path / name), PIXELS)
    if name.endswith(".zip"):
        assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


@DESTINATIONS
def test_a_conversion_of_something_else_is_not_gone_on_with(tmp_path: Path, name: str) -> None:
    source = open_source(_folder(tmp_path))
    steps = convert(source, tmp_path / name, make_recipe(source, 4, None, "lanczos", "white"), workers=0)
    next(steps)
    steps.close()
    with pytest.raises(ValueError, match="was begun with other settings"):
        _convert(source, tmp_path / name)


@DESTINATIONS
def test_a_finished_set_is_not_written_over(tmp_path: Path, name: str) -> None:
    source = _folder(tmp_path)
    _convert(source, tmp_path / name)
    with pytest.raises(ValueError, match=r"exists.*remove it, or name another destination"):
        _convert(source, tmp_path / name)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    source = _folder(tmp_path)
    with pytest.raises(ValueError, match="was begun with other settings"):
        _convert(source, source)


@DESTINATIONS
def test_damaged_pictures_end_a_conversion_or_are_left_out_on_request(tmp_path: Path, name: str) -> None:
    source = _folder(tmp_path)
    path = source / "002.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"002\.png cannot be read.*--skip-bad") as error:
        _convert(source, tmp_path / name, workers=1)
    assert not multiprocessing.active_children(), f"still alive while {error.value!r} is held"
    (message,) = _convert(source, tmp_path / name, skip_bad=True, labels=np.arange(5))
    assert "002.png" in message
    np.testing.assert_array_equal(_pixels(tmp_path / name), PIXELS[[0, 1, 3, 4]])
    assert open_dataset(tmp_path / name).labels.tolist() == [0, 1, 3, 4]


def test_a_source_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    for path in _folder(tmp_path).iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"none of the 5 pictures of .* can be read"):
        _convert(tmp_path / "images", tmp_path / "out.zip", skip_bad=True)
