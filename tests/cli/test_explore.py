"""`sc-layers explore`."""

from __future__ import annotations

import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.cli.explorers import explorer
from tests.cli.running import assert_mistake, run
from tests.networks import save_small_networks


def test_the_printed_address_is_served_until_ctrl_c(tmp_path: Path) -> None:
    network = save_small_networks(tmp_path / "network.safetensors")
    with explorer(network, network, "--distance", "mse") as (process, lines):
        assert lines[:-1] == [f"measuring how far each code of {network} moves the picture"] * 2
        with urllib.request.urlopen(lines[-1], timeout=30) as page:
            assert "sc-layers explorer" in page.read().decode()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert rest.strip() == "stopped"
        assert process.returncode == 0


def test_what_is_wrong_with_a_network_is_printed_and_on_the_page(tmp_path: Path) -> None:
    with explorer(tmp_path / "absent.pt", "--order", "index") as (_, lines):
        assert lines[0].startswith("the page will say: no such network file or run folder")
        with pytest.raises(urllib.error.HTTPError) as failure:
            urllib.request.urlopen(lines[-1], timeout=30)
        assert "absent.pt" in failure.value.read().decode()


def test_mistakes_are_named(tmp_path: Path) -> None:
    network = save_small_networks(tmp_path / "network.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("explore", network, "--order", "index", "--port", port)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "Address already in use" in result.output
    assert len(result.output.splitlines()) == 1
    assert_mistake(run("explore", network, "--distance", "mse", "--weights", tmp_path / "absent.pt"), "weights")
    assert_mistake(run("explore", network, "--port", "99999"), "99999")
