from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sc_layers.data import Dataset, DSprites, batch_at, batches, open_dataset
from tests.data.files import idx_bytes, random_pixels, write_pngs

COUNT = 10
Opener = Callable[[Path], Dataset]


def _numbered_pngs(folder: Path) -> Dataset:
    """Ten grey images; image i is filled with i, but for its left column, which is 255."""
    pixels = np.arange(COUNT, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    pixels[:, :, 0] = 255
    write_pngs(folder, pixels)
    return open_dataset(folder)


def _idx(folder: Path) -> Dataset:
    (folder / "images-idx3-ubyte").write_bytes(idx_bytes(random_pixels(COUNT, channels=1)))
    return open_dataset(folder)


def _sprites(folder: Path) -> Dataset:
    return DSprites()


over_kinds = pytest.mark.parametrize("opened", [_numbered_pngs, _idx, _sprites])


def _take(stream: Iterator[Tensor], count: int) -> Tensor:
    """The next batches, [count, B, C, H, W]."""
    return torch.stack(list(itertools.islice(stream, count)))


@over_kinds
def test_equal_seeds_give_equal_streams(tmp_path: Path, opened: Opener) -> None:
    data = opened(tmp_path)
    first, again, other = (_take(batches(data, 4, seed, mirror=True), 8) for seed in (1, 1, 2))
    assert first.shape == (8, 4, 1, data.resolution, data.resolution)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@over_kinds
def test_a_stream_entered_later_goes_on_the_same(tmp_path: Path, opened: Opener) -> None:
    data = opened(tmp_path)
    whole = _take(batches(data, 4, 3, mirror=True), 12)
    assert torch.equal(_take(batches(data, 4, 3, mirror=True, start=7), 5), whole[7:])


@over_kinds
def test_a_batch_is_known_by_its_number(tmp_path: Path, opened: Opener) -> None:
    data = opened(tmp_path)
    whole = _take(batches(data, 4, 3), 6)
    assert torch.equal(batch_at(data, 4, 3, 5), whole[5])
    assert torch.equal(batch_at(data, 4, 3, 2), whole[2])


@pytest.mark.parametrize("batch_size", [4, 10, 23])
def test_every_epoch_shows_every_file_once_in_another_order(tmp_path: Path, batch_size: int) -> None:
    stream = batches(_numbered_pngs(tmp_path), batch_size, seed=0)
    shown = _take(stream, 60 // batch_size + 1)[..., 4, 4].flatten()[: 5 * COUNT]
    epochs = shown.view(5, COUNT)
    assert (epochs.sort(1).values == torch.arange(COUNT)).all()
    assert len(epochs.unique(dim=0)) == 5


def test_rendered_sets_are_drawn_from_evenly() -> None:
    images = _take(batches(DSprites(), 250, seed=0), 4).flatten(0, 2)
    coverage = images.float().mean(0) / 255
    torch.testing.assert_close(coverage, coverage.T, atol=0.05, rtol=0)
    torch.testing.assert_close(coverage, coverage.flip(0), atol=0.05, rtol=0)
    assert len({image.numpy().tobytes() for image in images}) > 975


def test_mirroring_flips_about_half_of_the_images(tmp_path: Path) -> None:
    data = _numbered_pngs(tmp_path)
    plain = _take(batches(data, 20, seed=0), 10)
    mirrored = _take(batches(data, 20, seed=0, mirror=True), 10)
    flipped = (mirrored == plain.flip(-1)).flatten(2).all(2)
    kept = (mirrored == plain).flatten(2).all(2)
    assert (flipped ^ kept).all()
    assert 70 < flipped.sum() < 130
    assert 0 < flipped[0].sum() < 20


def test_mirroring_leaves_the_data_as_it_was(tmp_path: Path) -> None:
    data = _idx(tmp_path)
    before = data.images_at(range(COUNT))
    _take(batches(data, 20, seed=0, mirror=True), 3)
    assert torch.equal(data.images_at(range(COUNT)), before)


def test_a_damaged_file_stops_the_stream_with_its_name(tmp_path: Path) -> None:
    path = write_pngs(tmp_path, random_pixels(4))[2]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"002\.png cannot be read as an image"):
        next(batches(open_dataset(tmp_path), 4, seed=0))


def test_a_stream_that_is_dropped_leaves_no_threads(tmp_path: Path) -> None:
    stream = batches(_numbered_pngs(tmp_path), 4, seed=0)
    next(stream)
    assert any(thread.name.startswith("sc-layers-data") for thread in threading.enumerate())
    del stream
    assert not any(thread.name.startswith("sc-layers-data") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0, "seed": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 4, "seed": -1}, "seed must be at least 0, got -1"),
        ({"batch_size": 4, "seed": 0, "start": -2}, "start must be at least 0, got -2"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(DSprites(), **arguments)
