"""Metrics of generators and encoders: TPL, PPL, FID, KID, the supervised ones, and model selection.

Names are loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "tpl": (".traversal_length", "traversal_perceptual_length"),
    "ppl": (".path_length", "ppl"),
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
    "model_centrality": (".disentanglement.centrality", "model_centrality"),
    "infomec": (".disentanglement.infomec", "infomec"),
    "dci_es": (".disentanglement.capacity", "dci_es"),
    "rotation_curve": (".rotation", "rotation_curve"),
    "select_models": (".select", "select_models"),
    "SelectionSettings": (".select", "SelectionSettings"),
    "MeasureSettings": (".registry", "MeasureSettings"),
    "TPLSettings": (".traversal_length", "TPLSettings"),
    "Sampling": (".generators", "Sampling"),
    "make_distance": (".distances", "make_distance"),
    "open_factor_data": (".disentanglement.labelled", "open_factor_data"),
}
__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .disentanglement.capacity import dci_es as dci_es
    from .disentanglement.centrality import model_centrality as model_centrality
    from .disentanglement.infomec import infomec as infomec
    from .disentanglement.information import mig as mig
    from .disentanglement.information import modularity as modularity
    from .disentanglement.intervention import beta_vae as beta_vae
    from .disentanglement.intervention import factor_vae as factor_vae
    from .disentanglement.labelled import open_factor_data as open_factor_data
    from .disentanglement.predictive import dci as dci
    from .disentanglement.predictive import sap as sap
    from .disentanglement.unsupervised import irs as irs
    from .disentanglement.unsupervised import udr as udr
    from .distances import make_distance as make_distance
    from .generative import fid as fid
    from .generative import kid as kid
    from .generators import Sampling as Sampling
    from .path_length import ppl as ppl
    from .registry import MeasureSettings as MeasureSettings
    from .rotation import rotation_curve as rotation_curve
    from .select import SelectionSettings as SelectionSettings
    from .select import select_models as select_models
    from .traversal_length import TPLSettings as TPLSettings
    from .traversal_length import traversal_perceptual_length as tpl  # noqa: F401 (offered under this name)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module, __name__), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
