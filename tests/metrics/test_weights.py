"""Weights of feature networks: what is read, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sc_layers.metrics.weights import cached_path, is_torchscript, load_torchscript, load_weights, read_state_dict

URL = "https://nowhere.invalid/net-0123456789.pth"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return torch.nn.Linear(2, 3).state_dict()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_of_either_format_of_torch_is_read(
    tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool
) -> None:
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / "net.pth")
    assert list(read) == ["weight", "bias"]
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_a_file_given_goes_before_the_cache_which_goes_before_a_download(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    torch.save(state, tmp_path / "mine.pth")
    assert torch.equal(load_weights(URL, tmp_path / "mine.pth", "")["bias"], state["bias"])
    cached_path(URL).parent.mkdir()
    torch.save({"bias": torch.ones(3)}, cached_path(URL))
    assert torch.equal(load_weights(URL, None, "")["bias"], torch.ones(3))


def test_without_a_connection_the_error_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(FileNotFoundError, match="no route to host") as error:
        load_weights(URL, None, "take another distance")
    assert f"Get {URL} on another machine and put it at {cached_path(URL)}, or take another distance" in str(
        error.value
    )


def test_what_is_no_state_dict_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*absent\.pth'"):
        read_state_dict(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"no state dict: .*text\.pth: not a file of torch\.save"):
        read_state_dict(tmp_path / "text.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(ValueError, match=r"epoch\.pth' holds dict, expected a state dict of tensors"):
        read_state_dict(tmp_path / "epoch.pth")


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"weight": Hostile()}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="which is not needed to read any known checkpoint; nothing of it was run"):
        read_state_dict(tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_told_from_a_state_dict(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))
    torch.save(state, tmp_path / "net.pth")
    assert is_torchscript(tmp_path / "script.pt")
    assert not is_torchscript(tmp_path / "net.pth")
    assert load_torchscript(tmp_path / "script.pt")(torch.zeros(4, 2)).shape == (4, 3)
    with pytest.raises(ValueError, match=r"net\.pth' is no TorchScript archive"):
        load_torchscript(tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"script\.pt' is a TorchScript archive, expected a state dict"):
        read_state_dict(tmp_path / "script.pt")
