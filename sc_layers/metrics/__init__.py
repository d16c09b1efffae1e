"""Metrics of generators and encoders: TPL, PPL, FID, KID, the supervised ones, and model selection.

Names are loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "tpl": (".traversal_length", "traversal_perceptual_length"),
    "ppl": (".generative", "ppl"),
    "fid": (".generative", "fid"),
    "kid": (".generative", "kid"),
    "factor_vae": (".disentanglement.intervention", "factor_vae"),
    "beta_vae": (".disentanglement.intervention", "beta_vae"),
    "dci": (".disentanglement.predictive", "dci"),
    "sap": (".disentanglement.predictive", "sap"),
    "mig": (".disentanglement.information", "mig"),
    "modularity": (".disentanglement.information", "modularity"),
    "irs": (".disentanglement.unsupervised", "irs"),
    "udr": (".disentanglement.unsupervised", "udr"),
    "rotation_curve": (".rotation", "rotation_curve"),
    "select_models": (".selection", "select_models"),
    "make_distance": (".distances", "make_distance"),
    "open_factor_data": (".disentanglement.factor_files", "open_factor_data"),
}
__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .disentanglement.factor_files import open_factor_data as open_factor_data
    from .disentanglement.information import mig as mig
    from .disentanglement.information import modularity as modularity
    from .disentanglement.intervention import beta_vae as beta_vae
    from .disentanglement.intervention import factor_vae as factor_vae
    from .disentanglement.predictive import dci as dci
    from .disentanglement.predictive import sap as sap
    from .disentanglement.unsupervised import irs as irs
    from .disentanglement.unsupervised import udr as udr
    from .distances import make_distance as make_distance
    from .generative import fid as fid
    from .generative import kid as kid
    from .generative import ppl as ppl
    from .rotation import rotation_curve as rotation_curve
    from .selection import select_models as select_models
    from .traversal_length import traversal_perceptual_length as tpl  # noqa: F401 (offered under this name)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module, __name__), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
