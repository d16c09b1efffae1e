"""What the patched training scripts of other code bases call, and the patches themselves.

`Training` is the way in for any other loop: attach, recogniser, loss, parameter groups, snapshot, resume, distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .nvlabs import Training as Training


def __getattr__(name: str) -> Any:
    if name != "Training":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .nvlabs import Training

    return Training
