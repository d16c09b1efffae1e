from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from sc_layers.data.limits import MAX_GZIP_BYTES, check_ratio, check_size, label_limit, read_bounded, read_gzipped


def test_the_label_file_may_grow_with_the_number_of_images_up_to_a_limit() -> None:
    assert label_limit(1) < label_limit(1000) < label_limit(10**6) == label_limit(10**9)


def test_more_than_the_limit_is_refused() -> None:
    check_size(10, 10, "a")
    with pytest.raises(ValueError, match="a holds 11 bytes, more than the 10 that are read"):
        check_size(11, 10, "a")


def test_no_more_than_the_limit_is_read() -> None:
    assert read_bounded(io.BytesIO(b"12345"), 5, "a") == b"12345"
    file = io.BytesIO(b"1" * 100)
    with pytest.raises(ValueError, match="a holds more than the 5 bytes"):
        read_bounded(file, 5, "a")
    assert file.tell() == 6


def test_a_gzipped_file_is_unpacked_as_far_as_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"1234567"))
    assert read_gzipped(path, 3).tobytes() == b"123"
    assert read_gzipped(path, 9).tobytes() == b"1234567"
    with pytest.raises(ValueError, match=r"a\.gz holds .* bytes, more than the"):
        read_gzipped(path, MAX_GZIP_BYTES + 1)


def test_a_large_array_must_not_come_from_almost_nothing() -> None:
    check_ratio(1 << 28, 1, "a")
    check_ratio(3 * 10**9, 25 * 10**6, "dSprites")
    with pytest.raises(ValueError, match="a would unpack to 3,000,000,000 bytes from 3,000,000, over 300 times"):
        check_ratio(3 * 10**9, 3 * 10**6, "a")
