"""Import of optional packages, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, a dependency of the optional feature set `extra`.

    Args:
        module: dotted module name, such as `"PIL.Image"`.
        extra: the extra of this package that installs it, such as `"train"`.

    Raises:
        ImportError: the package is missing; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != top:
            raise
        raise ImportError(f"this needs the package {top!r}: pip install 'sc-layers[{extra}]'") from error
