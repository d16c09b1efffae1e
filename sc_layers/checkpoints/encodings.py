"""Codes and noise that give real images back, in a file: commands draw them instead of the pictures of seeds."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..files import read_file, write_file
from ..messages import shown
from . import safetensors
from .errors import CheckpointError, naming
from .pickles.limits import Budget

_NAMES = "encoded_images"  # the key of the images' names in the metadata
_CODES = "codes"


@dataclass(frozen=True)
class Encoding:
    """N encoded images.

    Attributes:
        names: what the images are called, [N].
        codes: [N, K].
        noise: maps [N, 1, H, W] for the generator's buffers of these names.
    """

    names: Sequence[str]
    codes: Tensor
    noise: Mapping[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write a `.safetensors` file, whole or not at all.

        Args:
            path: the file, in a folder that exists.

        Raises:
            WriteError: see `files.write_file`.
        """
        tensors = {_CODES: self.codes, **self.noise}
        write_file(path, safetensors.dump(tensors, {_NAMES: json.dumps(list(self.names))}))

    @classmethod
    def load(cls, path: str | Path) -> Encoding:
        """What `save` wrote.

        Args:
            path: the file.

        Raises:
            CheckpointError: something else, or damaged.
        """
        data = read_file(path)
        with naming(path):
            budget = Budget(len(data))
            tensors, metadata = safetensors.load(data, budget)
            if _NAMES not in metadata or _CODES not in tensors:
                raise CheckpointError("these are no images that `sc-layers encode` encoded")
            names, codes = budget.parse_json(metadata[_NAMES], "the names of the images"), tensors.pop(_CODES)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise CheckpointError(f"the names of the images are {shown(names)}, expected a list of texts")
            for name, tensor in {_CODES: codes, **tensors}.items():
                if not tensor.is_floating_point() or not tensor.isfinite().all() or len(tensor) != len(names):
                    raise CheckpointError(f"{shown(name)} has not a row of finite numbers for each image")
        return cls(names, codes, tensors)

    def check_fits(self, generator: nn.Module, num_codes: int) -> None:
        """Refuse a generator that did not encode these images.

        Args:
            generator: the generator.
            num_codes: its number of codes.

        Raises:
            ValueError: another number of codes, or other noise.
        """
        if self.codes.ndim != 2 or self.codes.shape[1] != num_codes:
            raise ValueError(f"the images were encoded as {tuple(self.codes.shape)} codes, the network has {num_codes}")
        buffers = dict(generator.named_buffers())
        for name, maps in self.noise.items():
            if name not in buffers or buffers[name].shape[1:] != maps.shape[1:]:
                raise ValueError(f"the images were encoded with noise {shown(name)} that the network does not have")

    def name_of(self, index: int) -> str:
        """What an image is called; raises ValueError if there is no image of this `index`."""
        if not 0 <= index < len(self.names):
            raise ValueError(f"there is no encoded image {index}: there are {len(self.names)}, from 0")
        return self.names[index]

    def at(self, index: int, generator: nn.Module) -> tuple[nn.Module, Tensor]:
        """A generator with the noise of an image, and the image's codes [1, K].

        Args:
            index: which image, from 0.
            generator: what encoded it; it stays as it is.

        Raises:
            ValueError: there is no such image.
        """
        self.name_of(index)
        noisy = copy.deepcopy(generator)
        for name, buffer in noisy.named_buffers():
            if name in self.noise:
                buffer.copy_(self.noise[name][index : index + 1])
        return noisy, self.codes[index : index + 1].to(next(noisy.parameters()).device)
