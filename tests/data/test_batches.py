from __future__ import annotations

import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sc_layers.data import Dataset, DSprites, batch_at, batches, open_dataset
from tests.data.files import idx_bytes, random_pixels, write_pngs, zip_folder
from tests.tolerances import SAMPLED

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


def test_the_order_of_a_seed_stays_what_it_was(tmp_path: Path) -> None:
    shown = _take(batches(_numbered_pngs(tmp_path), 4, seed=3), 6)[:, :, 0, 4, 4]
    first_runs_with_this_seed = [[9, 6, 0, 2], [1, 4, 7, 5], [3, 8, 3, 8], [9, 7, 4, 6], [1, 2, 0, 5], [7, 1, 2, 3]]
    assert shown.tolist() == first_runs_with_this_seed


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
    torch.testing.assert_close(coverage, coverage.T, atol=SAMPLED, rtol=0)
    torch.testing.assert_close(coverage, coverage.flip(0), atol=SAMPLED, rtol=0)
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


def test_a_damaged_file_is_skipped_on_request_with_one_warning(tmp_path: Path) -> None:
    data = _numbered_pngs(tmp_path)
    path = tmp_path / "003.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.warns(UserWarning, match=r"left out, 1 so far: .*003\.png cannot be read") as warned:
        shown = _take(batches(data, COUNT, seed=0, skip_bad=True), 2)[..., 4, 4]
    # Other warnings may come when Python clears away what earlier tests left.
    assert [warning.category for warning in warned].count(UserWarning) == 1
    assert sorted(shown[0].flatten().tolist()) == [0, 1, 2, 4, 4, 5, 6, 7, 8, 9]


def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    data = _numbered_pngs(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"none of the 10 images of .* can be read"):
        next(batches(data, 4, seed=0, skip_bad=True))


def _zip(folder: Path) -> Dataset:
    write_pngs(folder / "images", random_pixels(COUNT))
    return open_dataset(zip_folder(folder / "images", folder / "images.zip"))


def _npz(folder: Path) -> Dataset:
    np.savez(folder / "images.npz", imgs=random_pixels(COUNT))
    return open_dataset(folder / "images.npz")


def _packed_npz(folder: Path) -> Dataset:
    np.savez_compressed(folder / "images.npz", imgs=random_pixels(COUNT))
    return open_dataset(folder / "images.npz")


def _h5(folder: Path) -> Dataset:
    with pytest.importorskip("h5py").File(folder / "images.h5", "w") as file:
        file["images"] = random_pixels(COUNT)
    return open_dataset(folder / "images.h5")


def _tfrecords(folder: Path) -> Dataset:
    return open_dataset(Path(__file__).parent / "reference" / "tfr_toy")


def _shapes(folder: Path) -> Dataset:
    return open_dataset("shapes3d", 16)


def _assert_workers_show_the_same(data: Dataset, start_method: str) -> None:
    expected = _take(batches(data, 4, 3, mirror=True, start=2, workers=0), 5)
    got = _take(batches(data, 4, 3, mirror=True, start=2, workers=2, start_method=start_method), 5)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("opened", [_zip, _numbered_pngs, _idx, _npz, _h5, _tfrecords, _shapes])
def test_workers_show_the_same_in_the_same_order(tmp_path: Path, opened: Opener) -> None:
    _assert_workers_show_the_same(opened(tmp_path), "fork")


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_workers_that_start_afresh_show_the_same_in_the_same_order(tmp_path: Path, start_method: str) -> None:
    _assert_workers_show_the_same(_zip(tmp_path), start_method)


@pytest.mark.parametrize("opened", [_zip, _numbered_pngs, _idx, _npz, _packed_npz, _h5, _tfrecords, _sprites, _shapes])
def test_a_data_set_that_was_sent_to_another_process_shows_the_same(tmp_path: Path, opened: Opener) -> None:
    data = opened(tmp_path)
    packed = pickle.dumps(data)
    assert torch.equal(pickle.loads(packed).images_at([3, 1]), data.images_at([3, 1]))


@pytest.mark.parametrize("opened", [_idx, _npz, _packed_npz, _tfrecords])
def test_images_that_lie_in_one_file_are_not_sent_themselves(tmp_path: Path, opened: Opener) -> None:
    data = opened(tmp_path)
    assert len(pickle.dumps(data)) < data.images_at(range(len(data))).numel() / 2 + 2000


def test_a_worker_tells_of_damage_in_the_words_of_the_data_set(tmp_path: Path) -> None:
    path = write_pngs(tmp_path, random_pixels(4))[2]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"^[^\n]*002\.png cannot be read as an image[^\n]*$"):
        next(batches(open_dataset(tmp_path), 4, seed=0, workers=1))


def test_reading_leaves_the_random_numbers_of_the_training_alone(tmp_path: Path) -> None:
    data = _numbered_pngs(tmp_path)
    before = torch.get_rng_state()
    _take(batches(data, 4, seed=0, workers=1), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_that_is_dropped_leaves_no_processes(tmp_path: Path) -> None:
    stream = batches(_numbered_pngs(tmp_path), 4, seed=0, workers=2)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    del stream
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0, "seed": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 4, "seed": -1}, "seed must be at least 0, got -1"),
        ({"batch_size": 4, "seed": 0, "workers": -1}, "workers must be at least 0, got -1"),
        ({"batch_size": 4, "seed": 0, "start": -2}, "start must be at least 0, got -2"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(DSprites(), **arguments)
