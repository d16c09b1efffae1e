from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from sc_layers.data.sinks import FolderSink, Sink, ZipSink, open_sink, picture_file, picture_indices

RECIPE = b'{"resolution": 8}'
CONTENTS = [bytes([index]) * 200 for index in range(4)]


def _fill(sink: Sink, count: int) -> None:
    for index in range(count):
        if index not in sink.done:
            sink.add(picture_file(index), CONTENTS[index])


def test_pictures_are_numbered_in_folders_of_a_thousand() -> None:
    assert picture_file(12_345) == "00012/img00012345.png"
    assert picture_indices([picture_file(12_345), "dataset.json", "00000/img1.png"]) == {12_345}


def test_a_destination_called_zip_is_a_zip_and_another_a_folder(tmp_path: Path) -> None:
    assert isinstance(open_sink(tmp_path / "a.ZIP", RECIPE), ZipSink)
    assert isinstance(open_sink(tmp_path / "a", RECIPE), FolderSink)


def test_a_zip_takes_its_place_when_it_is_finished(tmp_path: Path) -> None:
    sink = ZipSink(tmp_path / "a.zip", RECIPE)
    _fill(sink, 4)
    sink.close(finished=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.part"]
    ZipSink(tmp_path / "a.zip", RECIPE).close(finished=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("lost", [1, 30, 240, 300, 700, 1500])
def test_a_zip_cut_off_anywhere_goes_on_after_its_last_whole_entry(tmp_path: Path, lost: int) -> None:
    sink = ZipSink(tmp_path / "a.zip", RECIPE)
    _fill(sink, 4)
    sink.close(finished=False)
    partial = tmp_path / "a.zip.part"
    content = partial.read_bytes()
    partial.write_bytes(content[: content.index(b"PK\1\2")][:-lost])
    again = ZipSink(tmp_path / "a.zip", RECIPE)
    assert again.done == set(range(max(0, 4 - (lost + 251) // 251)))
    _fill(again, 4)
    again.close(finished=True)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["convert.json", *map(picture_file, range(4))]
        assert [archive.read(picture_file(index)) for index in range(4)] == CONTENTS


def test_an_entry_whose_bytes_are_wrong_ends_what_is_kept(tmp_path: Path) -> None:
    sink = ZipSink(tmp_path / "a.zip", RECIPE)
    _fill(sink, 4)
    sink.close(finished=False)
    partial = tmp_path / "a.zip.part"
    partial.write_bytes(partial.read_bytes().replace(CONTENTS[2], bytes(200)))
    assert ZipSink(tmp_path / "a.zip", RECIPE).done == {0, 1}


@pytest.mark.parametrize("name", ["a.zip", "a"])
def test_another_recipe_is_refused(tmp_path: Path, name: str) -> None:
    open_sink(tmp_path / name, RECIPE).close(finished=False)
    with pytest.raises(ValueError, match="was begun with other settings"):
        open_sink(tmp_path / name, b'{"resolution": 16}')


def test_a_folder_keeps_what_is_whole(tmp_path: Path) -> None:
    _fill(FolderSink(tmp_path / "a", RECIPE), 2)
    (tmp_path / "a" / "00000" / "img00000002.png.part").write_bytes(b"half")
    assert FolderSink(tmp_path / "a", RECIPE).done == {0, 1}
