"""Feature networks of FID and KID."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics import weights as weights_module
from sc_layers.metrics.distances import EfficientNetLite
from sc_layers.metrics.features import EfficientNetFeatures, InceptionFeatures, make_features


@pytest.mark.slow
def test_inception_runs_from_a_weights_file(tmp_path: Path) -> None:
    """The network that FID is defined by, with random weights in a file of the published layout."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    outline = module.FeatureExtractorInceptionV3
    reading, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *_, **__: {}
    strict, outline.load_state_dict = outline.load_state_dict, lambda *_: None
    try:
        state = outline("inception-v3-compat", ["2048"]).state_dict()
    finally:
        module.load_state_dict_from_url, outline.load_state_dict = reading, strict
    torch.save(state, tmp_path / "inception.pth")
    features = InceptionFeatures(tmp_path / "inception.pth")(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert features.shape == (2, 2048)
    assert features.isfinite().all()


class _ScriptedInception(nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        means = images.float().mean(dim=(2, 3))
        return means if return_features else means * 0


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_inception_is_asked_for_features(tmp_path: Path) -> None:
    torch.jit.script(_ScriptedInception()).save(str(tmp_path / "inception.pt"))
    images = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    assert InceptionFeatures(tmp_path / "inception.pt")(images).tolist() == [[7.0] * 3] * 2


def test_missing_inception_weights_offline_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(FileNotFoundError, match=r"no route.*weights-inception-2015-12-05.*--feature-weights"):
        make_features("inception")
    assert weights_module.cached_path("https://a/b.pth") == tmp_path / "checkpoints" / "b.pth"


def test_offline_features_are_those_of_the_distances_network_at_its_own_size() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    features = EfficientNetFeatures()
    torch.testing.assert_close(features(images), EfficientNetLite().pooled(images.float()))
    small = features(images[..., :32, :32])
    assert (small > 0).float().mean() > 0.05


def test_weights_for_a_ready_network_are_refused() -> None:
    with pytest.raises(ValueError, match="the one given is ready"):
        make_features(nn.Flatten(), "x.pth")
