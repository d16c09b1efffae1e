"""`sc-layers inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoints.networks import NetworkRecord
    from ..checkpoints.state import AnyNetwork

_LINE = 200


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(file: Path, tensors: bool, as_json: bool) -> None:
    """Show what a checkpoint holds; nothing in it is run.

    FILE is a network file, the folder of a run, of which the newest snapshot is taken, or a folder of the hub.
    """
    from ..checkpoints import read_contents
    from ..checkpoints.snapshots import find_snapshot

    contents = read_contents(find_snapshot(file))
    networks = {name: _summary(network, tensors) for name, network in contents.networks.items()}
    if as_json:
        report = {"format": contents.format, "networks": networks, "meta": contents.meta}
        click.echo(json.dumps(report, indent=2, default=str))
        return
    click.echo(f"format: {contents.format}")
    for name, summary in networks.items():
        click.echo(f"{name}: {summary['class']}, {summary['numbers']:,} numbers in {summary['tensors']} tensors")
        for key, value in summary["arguments"].items():
            click.echo(_shortened(f"    {key}: {value}"))
        for key, value in summary.get("listing", {}).items():
            click.echo(_shortened(f"        {key} {value}"))
    for key, value in contents.meta.items():
        click.echo(_shortened(f"meta {key}: {value}"))


def _summary(network: AnyNetwork, tensors: bool) -> dict[str, Any]:
    from ..checkpoints.state import NetworkState, num_parameters

    if isinstance(network, NetworkState):
        kind, arguments = network.kind, dict(network.config)
    else:
        kind, arguments = f"{network.class_name} (of another program)", _arguments(network)
    summary: dict[str, Any] = {
        "class": kind,
        "numbers": num_parameters(network.state),
        "tensors": len(network.state),
        "arguments": arguments,
    }
    if tensors:
        summary["listing"] = {name: _described(tensor) for name, tensor in network.state.items()}
    return summary


def _arguments(network: NetworkRecord) -> dict[str, Any]:
    arguments = {f"argument {index}": value for index, value in enumerate(network.args)} | network.kwargs
    if network.attachment is not None:
        arguments["spatial constriction"] = network.attachment
    return arguments


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _shortened(line: str) -> str:
    """One line for a terminal: no control characters, which could hide or fake output, and not endless."""
    printable = "".join(char if char.isprintable() else "?" for char in line)
    return printable if len(printable) <= _LINE else printable[: _LINE - 3] + "..."
