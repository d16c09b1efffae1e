"""Weights of feature networks: from a file, from torch hub's cache, or downloaded into it."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from ..checkpoints import CheckpointError
from ..checkpoints.pickles.torch_files import read_torch_file
from ..files import check_regular

# ImageNet classifiers of torchvision that the `lpips` package builds on. The name's suffix is the start of the SHA-256.
BACKBONE_URLS = {
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "squeeze": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
}


def cached_path(url: str) -> Path:
    """Where torch hub keeps the file of `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def load_weights(url: str, path: str | Path | None, otherwise: str) -> dict[str, Tensor]:
    """The state dict in `path`, or that of `url` from torch hub's cache, downloaded once.

    Args:
        url: where the weights are published.
        path: a file to read instead; nothing is downloaded then.
        otherwise: what else the user can do where nothing can be downloaded; ends the error's message.

    Raises:
        FileNotFoundError: `path` does not exist, or there is neither a cached file nor a connection; the message says
            where to get the file and where to put it.
        ValueError: the file holds something else than a state dict.
    """
    if path is not None:
        return read_state_dict(path)
    if not cached_path(url).is_file():
        _download(url, otherwise)
    return read_state_dict(cached_path(url))


def _download(url: str, otherwise: str) -> None:
    target = cached_path(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = target.stem.rsplit("-", 1)[-1]
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix)
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f"the weights of the feature network are not here and cannot be downloaded ({error}). Get {url} on another "
            f"machine and put it at {target}, or {otherwise}"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from `path` without running code from the file.

    Args:
        path: a file of `torch.save`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or no state dict.
    """
    path = Path(path)
    if is_torchscript(path):
        raise ValueError(f"{str(path)!r} is a TorchScript archive, expected a state dict of tensors")
    try:
        state = read_torch_file(path)
    except CheckpointError as error:
        raise ValueError(f"no state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{str(path)!r} holds {type(state).__name__}, expected a state dict of tensors")
    return state


def is_torchscript(path: str | Path) -> bool:
    """Whether `path`, a regular file, is a TorchScript archive, which holds code besides tensors."""
    check_regular(path)
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_torchscript(path: str | Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """Load a TorchScript archive from `path` onto `device`. This runs code from the file: only load what you trust.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no TorchScript archive.
    """
    if not is_torchscript(path):
        raise ValueError(f"{str(path)!r} is no TorchScript archive")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but the files are what they are
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    return module.eval()
