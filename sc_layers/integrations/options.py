"""Settings of a training with spatial constriction that all code bases share, and their command line flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from ..attach import attach_spatial_constriction, constriction_parameters
from ..losses import PerceptualSimplicityLoss
from ..models import Recognizer, RecognizerConfig


@dataclass(frozen=True)
class ConstrictionOptions:
    """What the flags of a patched training script say.

    Args:
        sc_codes: number of codes of all layers together.
        sc_res: nominal resolutions of the constricted layers; the codes are spread evenly, coarse layers first.
        sc_rects: rectangles a code.
        sc_freeze_g: keep the generator's own weights as they are and train only constriction and recogniser.
        sc_lr: multiplies the generator's learning rate for the constriction.
        q_lr: multiplies it for the recogniser.
        ps_weight: weight of the perceptual simplicity loss; 0 trains without recogniser.
        ps_eps: size of the perturbation.
        attached: arguments of `attach_spatial_constriction` that a resumed checkpoint tells, in place of `sc_res` and
            `sc_rects`.
    """

    sc_codes: int
    sc_res: list[int] = field(default_factory=lambda: [8, 16, 32])
    sc_rects: int = 4
    sc_freeze_g: bool = False
    sc_lr: float = 5.0
    q_lr: float = 1.0
    ps_weight: float = 0.5
    ps_eps: float = 3.0
    attached: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("sc_codes", "sc_rects"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("sc_lr", "q_lr", "ps_weight", "ps_eps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def attach(self, generator: nn.Module) -> None:
        """Attach to a generator whose weights do not count yet: codes act from the start.

        Args:
            generator: fresh, without constriction.

        Raises:
            ValueError: resolutions that it does not have.
        """
        if self.attached is not None:
            attach_spatial_constriction(generator, init="random", **self.attached)
        else:
            attach_spatial_constriction(generator, self.sc_codes, self.sc_res, self.sc_rects, "random")

    def recognizer(self, resolution: int, num_channels: int) -> Recognizer:
        """A fresh recogniser; without minibatch statistics, so that a prediction does not depend on its batch.

        Args:
            resolution: height and width of the images in pixels.
            num_channels: channels of the images, 1 or 3.
        """
        config = RecognizerConfig(
            resolution=resolution, num_channels=num_channels, num_codes=self.sc_codes, minibatch_std=False
        )
        return Recognizer(config)

    def loss(self) -> PerceptualSimplicityLoss:
        """The loss with this weight and perturbation."""
        return PerceptualSimplicityLoss(self.ps_weight, self.ps_eps)


@dataclass(frozen=True)
class Flag:
    """A command line flag of the patched training scripts."""

    name: str
    type: type
    help: str

    @property
    def key(self) -> str:
        """The name as Python spells it, with underscores."""
        return self.name.replace("-", "_")


FLAGS = (
    Flag("sc-codes", int, "Attach this many spatially constricted codes  [default: none]"),
    Flag("sc-res", str, "Resolutions of the constricted layers, comma-separated  [default: 8,16,32]"),
    Flag("sc-rects", int, "Rectangles a code  [default: 4]"),
    Flag(
        "sc-freeze-g", bool, "Train only constriction and recogniser; needs a network to start from  [default: false]"
    ),
    Flag("sc-lr", float, "Learning-rate multiplier of the constriction  [default: 5]"),
    Flag("q-lr", float, "Learning-rate multiplier of the recogniser  [default: 1]"),
    Flag("ps-weight", float, "Weight of the perceptual simplicity loss, 0 = without recogniser  [default: 0.5]"),
    Flag("ps-eps", float, "Size of the perturbation in that loss  [default: 3]"),
)
_STRUCTURE = ("sc_codes", "sc_res", "sc_rects")  # what a checkpoint's constriction tells, too


def options_of_flags(
    values: Mapping[str, Any], resumed: bool, found: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Arguments of `ConstrictionOptions` by the values of the flags; None where there is nothing to constrict.

    Args:
        values: what was given, by the names of the flags, None where a flag was not; other entries are left alone.
        resumed: whether the training starts from a network.
        found: settings of the constriction that this network has, see `settings_of_checkpoint`. They count where no
            flag says otherwise.

    Raises:
        ValueError: flags that contradict each other.
    """
    given = {flag.key: values[flag.key] for flag in FLAGS if values.get(flag.key) is not None}
    if found is not None and not any(key in given for key in _STRUCTURE):
        given = {**found, **given}
    if not given:
        return None
    if "sc_codes" not in given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"{names} needs --sc-codes, the number of codes")
    if given.get("sc_freeze_g") and not resumed:
        raise ValueError("--sc-freeze-g freezes an untrained generator: give a network to resume from")
    if isinstance(given.get("sc_res"), str):
        given["sc_res"] = _resolutions(given["sc_res"])
    ConstrictionOptions(**given)
    return given


def settings_of_checkpoint(
    attached: Mapping[str, Any] | None, stored: Mapping[str, Any] | None, recognised: bool
) -> dict[str, Any] | None:
    """What a checkpoint says of its constriction, as arguments of `ConstrictionOptions`; None if it has none.

    Args:
        attached: arguments with which it was attached.
        stored: the run's settings, where the checkpoint has them.
        recognised: whether the checkpoint has a recogniser.
    """
    if attached is None:
        return None
    known = {field.name for field in fields(ConstrictionOptions)} - {*_STRUCTURE, "attached", "sc_freeze_g"}
    kept = {name: value for name, value in (stored or {}).items() if name in known}
    without = {} if recognised else {"ps_weight": 0.0}
    return {**kept, **without, "sc_codes": attached["num_codes"], "attached": dict(attached)}


def describe_resumed(options: Mapping[str, Any]) -> str:
    """One line that tells the user which constriction goes on, of the `options` of a resumed run."""
    attached = options["attached"]
    return f"Going on with the spatial constriction of the checkpoint: {attached['num_codes']} codes in " + ", ".join(
        map(str, attached["layers"])
    )


def _resolutions(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--sc-res must be numbers separated by commas, got {text!r}") from None


def parameter_groups(generator: nn.Module, recognizer: nn.Module | None, options: ConstrictionOptions) -> list[Any]:
    """Group what an optimiser trains, each group with its multiplier of the learning rate.

    Args:
        generator: attached.
        recognizer: None where none is trained.
        options: say whether the generator itself stands still, and hold the multipliers.

    Returns:
        (parameters, multiplier) of the generator itself, of its constriction, and of the recogniser if any.
    """
    added = constriction_parameters(generator)
    ids = {id(parameter) for parameter in added}
    own = [parameter for parameter in generator.parameters() if id(parameter) not in ids]
    groups = [(own, 0.0 if options.sc_freeze_g else 1.0), (added, options.sc_lr)]
    return groups if recognizer is None else [*groups, (list(recognizer.parameters()), options.q_lr)]
