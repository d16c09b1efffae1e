"""Networks of any supported file, ready to run: a generator of another program becomes a plain one of its codes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attach import AttachedGenerator, DirectedGenerator, ForeignSpace, OwnSpace, SeededGenerator, Space, draw_latent
from ..directions import Directions
from ..messages import shown
from ..models.latents import check_latents, codes_of_seed, recorded_latents
from .encodings import Encoding
from .errors import CheckpointError, naming
from .foreign.checkouts import generator_module
from .networks import NetworkRecord, rebuild
from .read import load_network, read_contents
from .snapshots import find_snapshot
from .write import write_contents

CODE_NAMES = "code_names"  # keys in meta
DIRECTIONS = "directions"
_GENERATORS = ("G_ema", "G")  # in the order of preference
_RECOGNIZERS = ("Q_ema", "Q")


def generator_name(networks: Collection[str]) -> str:
    """Which of a file's networks draws its images: the averaged generator, else the one in training.

    >>> generator_name(["G", "D", "G_ema"])
    'G_ema'

    Raises:
        ValueError: there is no generator.
    """
    name = next((name for name in _GENERATORS if name in networks), None)
    if name is None:
        raise ValueError(f"no generator {' or '.join(_GENERATORS)}, only {', '.join(networks) or 'nothing'}")
    return name


def recognizer_of(networks: Mapping[str, Any]) -> Any:
    """Which of a file's networks reads its images: the averaged recogniser, else the one in training, None without any.

    >>> recognizer_of({"Q": "in training", "Q_ema": "averaged"})
    'averaged'
    """
    return next((networks[name] for name in _RECOGNIZERS if networks.get(name) is not None), None)


def code_names(meta: Mapping[str, Any]) -> dict[int, str]:
    """What codes are called, by their numbers, as `sc-layers label` keeps it.

    >>> code_names({"code_names": {"5": "smile"}})
    {5: 'smile'}

    Args:
        meta: what a file keeps beside its networks.

    Raises:
        CheckpointError: something else stands there than names by numbers.
    """
    names = meta.get(CODE_NAMES) or {}
    fits = isinstance(names, dict) and all(
        isinstance(code, str) and code.isdecimal() and len(code) < 10 and isinstance(name, str)
        for code, name in names.items()
    )
    if not fits:
        raise CheckpointError(f"{CODE_NAMES} are {shown(names)}, expected names by numbers of codes")
    return {int(code): name for code, name in names.items()}


def open_networks(
    path: str | Path, code: str | Path | None = None, label: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """`load_network`, whose generator also runs where it is one of another program with constriction attached.

    A generator whose file has directions (`sc-layers directions`) comes as one of the coordinates along them.

    Args:
        path: network file.
        code: the user's checkout of the program that wrote it, whose classes rebuild the generator. They are the only
            foreign code that is imported and run; nothing in the file is.
        label: class of a conditional generator.
        seed: draws the z of a generator of another program, or with directions, which keeps it while its codes move.

    Returns:
        As `load_network`; a generator of another program comes as `AttachedGenerator`, one with directions as
        `DirectedGenerator`, a discriminator of another program as a record.

    Raises:
        ValueError: no generator in the file, one without constriction, `code` missing, or a label that does not fit.
        ImportError: `code` cannot be imported.
        CheckpointError: damaged, or not fitting the classes of `code`.
    """
    networks = load_network(path)
    name, directions = _generator_in(networks, path), networks["meta"].get(DIRECTIONS)
    if directions is not None:
        networks[name] = _directed(networks[name], directions, path, code, label, seed)
    elif isinstance(networks[name], NetworkRecord):
        networks[name] = _view(networks[name], path, code, label, seed)
    else:
        _refuse_class(label, path)
    return networks


def open_space(path: str | Path, code: str | Path | None = None, label: int | None = None) -> tuple[Space, str]:
    """The generator of a file for finding directions in it.

    Args:
        path: network file.
        code: checkout of the program that wrote it, see `open_networks`.
        label: class of a conditional generator.

    Returns:
        Where directions lie, and the generator's name in the file.

    Raises:
        ValueError: no generator, one whose codes are coordinates along directions already, or `code` missing.
        ImportError: `code` cannot be imported.
        CheckpointError: damaged, or not fitting the classes of `code`.
    """
    networks = load_network(path)
    name = _generator_in(networks, path)
    if networks["meta"].get(DIRECTIONS) is not None:
        raise ValueError(f"{path} has directions already: find others in the network that they were found in")
    return _space(networks[name], recorded_latents(networks["meta"]), path, code, label), name


def _generator_in(networks: Mapping[str, Any], path: str | Path) -> str:
    try:
        return generator_name(networks)
    except ValueError as error:
        raise ValueError(f"{path} holds no generator") from error


def _directed(
    network: Any, fields: Any, path: str | Path, code: str | Path | None, label: int | None, seed: int
) -> DirectedGenerator:
    with naming(path):
        try:
            directions = Directions.from_dict(fields)
            check_latents(directions.latents)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
    space = _space(network, directions.latents, path, code, label)
    with naming(path):
        try:
            return DirectedGenerator(space, directions, seed).eval()
        except ValueError as error:
            raise CheckpointError(str(error)) from error


def _space(network: Any, latents: str, path: str | Path, code: str | Path | None, label: int | None) -> Space:
    if isinstance(network, NetworkRecord):
        return ForeignSpace(*_rebuilt(network, path, code, label))
    _refuse_class(label, path)
    return OwnSpace(network, latents)


def _refuse_class(label: int | None, path: str | Path) -> None:
    if label is not None:
        raise ValueError(f"{path} holds a generator without classes, got class {label}")


def _view(
    record: NetworkRecord, path: str | Path, code: str | Path | None, label: int | None, seed: int
) -> AttachedGenerator:
    if record.attachment is None:
        raise ValueError(
            f"{path} holds a generator of another program without spatial constriction, so there are no codes: attach "
            "it (sc-layers patch, or sc_layers.attach_spatial_constriction) and train it first, or find directions in "
            "it (sc-layers directions)"
        )
    generator, c = _rebuilt(record, path, code, label)
    return AttachedGenerator(generator, draw_latent(generator, seed), c).eval()


def _rebuilt(
    record: NetworkRecord, path: str | Path, code: str | Path | None, label: int | None
) -> tuple[nn.Module, Tensor]:
    """A generator of another program, and its class [1, c_dim]."""
    if code is None:
        raise ValueError(
            f"{path} holds a generator of another program: give --code DIR, your checkout of that program, whose "
            "classes are then imported to run it (nothing in the file is run)"
        )
    module = generator_module(Path(code), record.state, record.kwargs)
    with naming(path):
        generator = rebuild(record, module)
    return generator, _class_vector(int(getattr(generator, "c_dim", 0)), label, path)


def _class_vector(num_classes: int, label: int | None, path: str | Path) -> torch.Tensor:
    """One-hot [1, num_classes]."""
    if num_classes and label is None:
        raise ValueError(f"{path} holds a conditional generator: give --class, from 0 to {num_classes - 1}")
    if label is not None and not 0 <= label < num_classes:
        classes = f"classes 0 to {num_classes - 1}" if num_classes else "no classes"
        raise ValueError(f"{path} holds a generator of {classes}, got class {label}")
    vector = torch.zeros(1, num_classes)
    if label is not None:
        vector[0, label] = 1
    return vector


@dataclass(frozen=True)
class Opened:
    """A generator that draws, and how its codes are drawn.

    Attributes:
        path: the network file.
        generator: ours, another program's as an `AttachedGenerator`, or one of directions as a `DirectedGenerator`.
        latents: "normal" or "uniform".
        truncation: factor on codes, or psi of the other program.
        device: where the generator is.
        names: what codes are called, by their numbers, as far as they have names.
        encoding: encoded images, which take the place of the pictures of seeds; None draws the codes of seeds.
    """

    path: Path
    generator: Any
    latents: str
    truncation: float
    device: torch.device
    names: dict[int, str]
    encoding: Encoding | None = None

    def name_of(self, seed: int) -> str:
        """What the picture of a `seed` is called."""
        return f"seed {seed}" if self.encoding is None else self.encoding.name_of(seed)

    def at_seed(self, seed: int) -> tuple[Any, Tensor]:
        """The generator and the codes [1, K] of a picture, truncated, both on the device.

        A generator of another program gets a z of that seed, and its truncation leaves codes alone. With directions,
        what no direction moves is that of the seed, and the codes are its coordinates along them.

        Args:
            seed: decides the codes, and z of another program; with encoded images, which of them is drawn.

        Raises:
            ValueError: there is no such encoded image.
        """
        if self.encoding is not None:
            generator, codes = self.encoding.at(seed, self.generator)
            return generator, codes * self.truncation
        if isinstance(self.generator, SeededGenerator):
            return self.generator.at_seed(seed, self.truncation)
        codes = codes_of_seed(seed, self.generator.num_codes, self.latents)
        return self.generator, (codes * self.truncation).to(self.device)


def check_normal(generator: nn.Module, latents: str) -> None:
    """Raise ValueError where codes of attached generators, or along directions, are to be drawn by other `latents`.

    Args:
        generator: any.
        latents: "normal" or "uniform".
    """
    if isinstance(generator, SeededGenerator) and latents != "normal":
        which = "attached codes were trained with" if isinstance(generator, AttachedGenerator) else "directions need"
        raise ValueError(f"{which} --latents normal, got {latents}")


def open_generator(
    network: str | Path,
    code: str | Path | None = None,
    label: int | None = None,
    latents: str | None = None,
    truncation: float = 1.0,
    device: torch.device | str = "cpu",
    encoded: str | Path | None = None,
) -> Opened:
    """The generator of a file, ready to draw.

    Args:
        network: network file, folder of a run, of which the newest snapshot is taken, or folder of the hub.
        code: checkout of the program that wrote the file, if another did, see `open_networks`.
        label: class of a conditional generator.
        latents: how codes are drawn, "normal" or "uniform"; None takes what the file records.
        truncation: factor on codes, or psi of another program's generator.
        device: where the generator computes.
        encoded: file of `sc-layers encode` whose images are drawn instead of the pictures of seeds.

    Raises:
        ValueError: no generator, one whose options do not fit, or uniform codes of another program's generator; or
            images that another network encoded.
        ImportError: `code` cannot be imported.
        CheckpointError: damaged, or not fitting the classes of `code`.
    """
    path = find_snapshot(network)
    networks = open_networks(path, code, label)
    generator = networks[generator_name(networks)].to(device)
    latents = recorded_latents(networks["meta"], latents)
    check_normal(generator, latents)
    encoding = None if encoded is None else Encoding.load(encoded)
    if encoding is not None and isinstance(generator, DirectedGenerator):
        raise ValueError(f"images were encoded as codes, and {path} has directions: draw them by the network it is of")
    if encoding is not None:
        encoding.check_fits(generator, generator.num_codes)
    names = code_names(networks["meta"])
    return Opened(path, generator, latents, truncation, torch.device(device), names, encoding)


def name_codes(network: str | Path, changes: Mapping[int, str]) -> dict[int, str]:
    """Give codes names, which are kept in the network's file.

    Args:
        network: network file of this package, or folder of a run, of which the newest snapshot is taken.
        changes: names by numbers of codes; an empty one takes the name away. Without any the file stays as it is.

    Returns:
        All names that the file holds now.

    Raises:
        ValueError: a file that keeps no names, that of another program or the checkpoint of a training.
        CheckpointError: a damaged file.
        WriteError: the file can't be written.
    """
    path = find_snapshot(network)
    contents = read_contents(path)
    names = {**code_names(contents.meta), **changes}
    names = {code: name for code, name in sorted(names.items()) if name}
    if changes:
        if not contents.format.startswith("sc-layers"):
            raise ValueError(f"no names are kept in {path}, {contents.format}: convert it first (sc-layers convert)")
        kept = {str(code): name for code, name in names.items()}
        write_contents(path, contents.networks, {**contents.meta, CODE_NAMES: kept})
    return names
