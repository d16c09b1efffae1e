"""Checkpoints of stylegan2-ada-pytorch and stylegan3: dicts of objects whose pickles embed their source text.

Source: `torch_utils/persistence.py` of those programs, which on loading executes that text. Here it is not looked at:
class name, constructor arguments and tensors say all that is needed.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from ..networks import NetworkRecord, module_state
from ..pickles.limits import Budget
from ..pickles.records import Record
from ..state import AnyNetwork, NetworkState

_PERSISTENT = "torch_utils.persistence"
SETTINGS = "sc_options"  # the settings of a patched training, beside the networks
_ATTACHMENT = "spatial_constriction"  # where attaching leaves its arguments among those of the network


def is_persistence(content: Any) -> bool:
    """Whether `content`, an unpickled file, holds networks of persistent classes under the names of those programs."""
    return isinstance(content, dict) and any(
        isinstance(content.get(name), Record) and content[name].module == _PERSISTENT for name in ("G", "D", "G_ema")
    )


def _network_of(record: Record, budget: Budget) -> NetworkRecord:
    args, kwargs = record.state.get("_init_args", ()), record.state.get("_init_kwargs", {})
    if not isinstance(args, tuple) or not isinstance(kwargs, dict) or not all(isinstance(k, str) for k in kwargs):
        raise CheckpointError(f"{record.name:.80} was stored without the arguments that it was made with")
    attachment = kwargs.get(_ATTACHMENT)
    if attachment is not None and not isinstance(attachment, dict):
        raise CheckpointError(f"{_ATTACHMENT} of {record.name:.80} is not a set of arguments")
    kwargs = {name: value for name, value in kwargs.items() if name != _ATTACHMENT}
    return NetworkRecord(record.name, args, kwargs, module_state(record, budget), attachment=attachment)


def _recognizer_of(record: Any, budget: Budget) -> NetworkState:
    """Our recogniser, which the patched training scripts keep beside the networks."""
    state = record.state if isinstance(record, Record) and record.name == "Recognizer" else None
    config = state.get("config") if isinstance(state, dict) else None
    if not isinstance(config, Record) or not isinstance(config.state, dict):
        raise CheckpointError("Q is not a recogniser of sc_layers")
    return NetworkState("Recognizer", config.state, module_state(record, budget))


def networks_of(content: dict[str, Any], budget: Budget) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    """The networks of such a file as records, our recogniser where there is one, and `meta`.

    Args:
        content: what the file held.
        budget: pays for the names of the tensors.

    Raises:
        CheckpointError: a network without arguments or tensors.
    """
    networks: dict[str, AnyNetwork] = {}
    for name in ("G", "D", "G_ema"):
        record = content.get(name)
        if record is None:
            continue
        if not isinstance(record, Record) or not isinstance(record.state, dict):
            raise CheckpointError(f"{name} is not a network")
        networks[name] = _network_of(record, budget)
    if content.get("Q") is not None:
        networks["Q"] = _recognizer_of(content["Q"], budget)
    meta = {name: content.get(name) for name in ("training_set_kwargs", SETTINGS)}
    return networks, {name: value for name, value in meta.items() if name != SETTINGS or isinstance(value, dict)}
