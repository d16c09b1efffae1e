"""Perceptual distances: equal to their sources, real loading code, clear errors."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics import weights as weights_module
from sc_layers.metrics.distances import (
    LPIPS,
    EfficientNetLite,
    MeanSquared,
    PairwiseDistance,
    TorchScriptLPIPS,
    as_feature_distance,
    make_distance,
    prepare_images,
)
from tests.tolerances import SAME_FORMULA


def two_batches(size: int = 64, num: int = 3) -> tuple[Tensor, Tensor]:
    return tuple(torch.rand(num, 3, size, size) * 255 for _ in range(2))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def squeeze_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of torchvision's SqueezeNet, with random numbers."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def lpips_model(state: dict[str, Tensor]) -> nn.Module:
    """What the lpips package itself makes of the classifier's weights."""
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    for part in (getattr(model.net, f"slice{i}") for i in range(1, 8)):
        part.load_state_dict({name: features[name] for name in part.state_dict()})
    return model


def test_lpips_equals_the_lpips_package(squeeze_weights: Path) -> None:
    theirs = lpips_model(torch.load(squeeze_weights, weights_only=True))
    first, second = two_batches()
    expected = theirs(first / 127.5 - 1, second / 127.5 - 1).flatten()
    ours = make_distance("lpips-squeeze", squeeze_weights)(first, second)
    torch.testing.assert_close(ours, expected, **SAME_FORMULA[torch.float32])


def test_a_model_of_the_lpips_package_gets_images_in_its_own_range(squeeze_weights: Path) -> None:
    theirs = lpips_model(torch.load(squeeze_weights, weights_only=True))
    first, second = two_batches()
    expected = theirs(first / 127.5 - 1, second / 127.5 - 1).flatten()
    torch.testing.assert_close(as_feature_distance(theirs)(first, second), expected, **SAME_FORMULA[torch.float32])


def test_weights_come_from_torch_hubs_cache(
    squeeze_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = weights_module.cached_path(weights_module.BACKBONE_URLS["squeeze"])
    cached.parent.mkdir(parents=True)
    cached.write_bytes(squeeze_weights.read_bytes())
    first, second = two_batches()
    expected = make_distance("lpips-squeeze", squeeze_weights)(first, second)
    assert torch.equal(make_distance("lpips-squeeze")(first, second), expected)


def test_missing_weights_without_a_connection_are_one_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(weights_module.BACKBONE_URLS, "vgg", "https://nowhere.invalid/vgg16-397923af.pth")
    with pytest.raises(FileNotFoundError) as caught:
        make_distance("lpips")
    message = str(caught.value)
    assert "https://nowhere.invalid/vgg16-397923af.pth" in message
    assert str(tmp_path / "checkpoints" / "vgg16-397923af.pth") in message
    assert "--weights" in message
    assert "sc-layers[offline]" in message
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_weights_file_that_does_not_exist_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such\.pth"):
        make_distance("lpips-alex", "no-such.pth")


def test_a_weights_file_that_is_no_state_dict_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"no state dict: .*broken\.pth"):
        make_distance("lpips-squeeze", tmp_path / "broken.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not of torchvision's squeeze"):
        make_distance("lpips-squeeze", tmp_path / "other.pth")


class _Scripted(nn.Module):
    """A stand-in with the interface of StyleGAN's vgg16.pt."""

    def forward(self, images: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        features = images.mean(dim=(2, 3)) / 100
        return features * 2 if return_lpips else features


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_file_is_used_through_return_lpips(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pt"
    torch.jit.script(_Scripted()).save(str(path))
    distance = make_distance("lpips", path)
    assert isinstance(distance, TorchScriptLPIPS)
    first, second = two_batches()
    expected = ((first.mean((2, 3)) - second.mean((2, 3))) / 50).square().sum(1)
    torch.testing.assert_close(distance(first, second), expected, **SAME_FORMULA[torch.float32])


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_files_are_not_loaded_as_state_dicts(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pt"
    torch.jit.script(_Scripted()).save(str(path))
    with pytest.raises(ValueError, match="state dict"):
        make_distance("lpips-squeeze", path)


def test_a_state_dict_is_no_torchscript_archive(squeeze_weights: Path) -> None:
    with pytest.raises(ValueError, match="no TorchScript archive"):
        TorchScriptLPIPS(squeeze_weights)


def test_efficientnet_works_without_internet_and_grows_with_distortion() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    distance = EfficientNetLite()
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.rand(1, 3, 4, 4) * 255, size=64, mode="bicubic")
    noise = torch.randn(1, 3, 64, 64)
    distances = [distance(smooth, smooth + strength * noise).item() for strength in (0, 5, 20, 60)]
    assert distances[0] == 0
    assert distances == sorted(distances)


def test_efficientnet_features_are_those_of_the_classifier() -> None:
    """The package's own forward, from the pooled features on, gives the same logits."""
    pytest.importorskip("efficientnet_lite_pytorch")
    distance = EfficientNetLite()
    images = torch.rand(2, 3, 64, 64) * 255
    expected = distance.model((images - 127) / 128)
    torch.testing.assert_close(distance.model._fc(distance.pooled(images)), expected, **SAME_FORMULA[torch.float32])


def test_features_of_a_batch_do_not_depend_on_the_batch() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    distance = EfficientNetLite()
    images = torch.rand(3, 3, 32, 32) * 255
    together, alone = distance.features(images), distance.features(images[:1])
    for all_rows, row in zip(together, alone, strict=True):
        torch.testing.assert_close(all_rows[:1], row, **SAME_FORMULA[torch.float32])


def test_images_are_scaled_and_grey_is_repeated() -> None:
    images = torch.tensor([-1.0, 0.0, 1.5]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    prepared = prepare_images(images)
    assert prepared.shape == (3, 3, 8, 8)
    assert prepared[:, :, 0, 0].tolist() == [[0.0] * 3, [127.5] * 3, [318.75] * 3]


@pytest.mark.parametrize(("size", "expected"), [(256, 256), (300, 300), (512, 256), (768, 256), (640, 320)])
def test_images_above_256_pixels_are_averaged_down(size: int, expected: int) -> None:
    images = torch.rand(1, 3, size, size)
    prepared = prepare_images(images)
    assert prepared.shape[2:] == (expected, expected)
    factor = size // expected
    first = (images[0, 0, :factor, :factor].mean() + 1) * 127.5
    torch.testing.assert_close(prepared[0, 0, 0, 0], first, **SAME_FORMULA[torch.float32])


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 8)])
def test_images_of_another_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N, 1 or 3, H, W\]"):
        prepare_images(torch.zeros(shape))


def test_mean_squared_is_the_mean_over_channels_and_pixels() -> None:
    first, second = two_batches(8)
    expected = (first - second).square().mean((1, 2, 3))
    torch.testing.assert_close(MeanSquared()(first, second), expected, **SAME_FORMULA[torch.float32])


def test_any_function_of_two_batches_is_a_distance() -> None:
    distance = as_feature_distance(lambda a, b: (a - b).abs().amax((1, 2, 3)))
    first, second = two_batches(8)
    assert torch.equal(distance(first, second), (first - second).abs().amax((1, 2, 3)))


def test_a_function_that_returns_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"returned \(\) for 3 pairs"):
        PairwiseDistance(lambda a, b: (a - b).mean())(*two_batches(8))


def test_unknown_distances_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'l2'; known ones: lpips, lpips-alex, lpips-squeeze, efficientnet, mse"):
        make_distance("l2")


def test_weights_for_a_distance_without_any_are_refused() -> None:
    with pytest.raises(ValueError, match="no weights"):
        make_distance("mse", "file.pth")


def test_an_unknown_net_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="vgg, alex, squeeze"):
        LPIPS.load("resnet")


@pytest.mark.parametrize("size", [4, 28, 45])
def test_efficientnet_takes_images_of_any_size(size: int) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    distance = EfficientNetLite()
    images = torch.rand(2, 3, size, size) * 255
    assert distance(images[:1], images[1:]).item() > 0
    assert distance.pooled(images).shape == (2, 1280)
