"""Tables of attributes beside image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sc_layers.metrics.disentanglement.attributes import read_attributes
from sc_layers.metrics.disentanglement.labelled import LabelledImages, open_factor_data

CELEBA = """3
Bald Smiling
000001.jpg  1 -1
000002.jpg -1 -1
000003.jpg -1  1
"""


def test_a_table_as_celeba_has_it(tmp_path: Path) -> None:
    (tmp_path / "list_attr_celeba.txt").write_text(CELEBA)
    values, names = read_attributes(tmp_path / "list_attr_celeba.txt", ["a/000003.jpg", "000001.jpg"])
    assert values.tolist() == [[-1, 1], [1, -1]]
    assert names == ("Bald", "Smiling")


def test_a_csv_table_whose_header_names_the_column_of_files_too(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,age,smiles\nb.png,33.5,0\na.png,20,1\n")
    values, names = read_attributes(tmp_path / "labels.csv", ["a.png", "b.png"])
    assert values.tolist() == [[20, 1], [33.5, 0]]
    assert names == ("age", "smiles")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds 0 lines, expected a header"),
        ("file,age\na.png,old\n", "must hold numbers"),
        ("file,age\nb.png,3\n", r"no attributes of a\.png \(1 of 1 images lack them\)"),
        ("file,age\na.png,3\na.png,4\n", "1 images more than once"),
        ("file,age\na.png,3\nb.png\n", "line 3 of the table has 1 entries, not 2"),
        ("file,age,size,mood\na.png,3\n", "line 1 of the table has 4 entries, not 2"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"labels\.csv.*{message}"):
        read_attributes(tmp_path / "labels.csv", ["a.png"])


def test_a_table_that_is_no_text_or_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no table of text"):
        read_attributes(tmp_path / "labels.csv", [])
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_attributes(tmp_path / "none.csv", [])


def test_images_with_a_table_are_data_with_named_factors(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for index in (1, 2, 3):
        image.fromarray(np.full((8, 8, 3), 40 * index, np.uint8)).save(tmp_path / f"00000{index}.jpg")
    (tmp_path / "attributes.txt").write_text(CELEBA)
    data = open_factor_data(tmp_path, attributes=tmp_path / "attributes.txt")
    assert isinstance(data, LabelledImages)
    assert data.factor_names == ("Bald", "Smiling")
    assert data.factors.tolist() == [[1, 0], [0, 0], [0, 1]]
    with pytest.raises(ValueError, match="'dsprites' has no files that a table of attributes could name"):
        open_factor_data("dsprites", attributes=tmp_path / "attributes.txt")
