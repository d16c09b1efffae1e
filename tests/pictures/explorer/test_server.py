"""Who is served, and what is answered."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sc_layers.checkpoints.opening import open_generator
from sc_layers.pictures.explorer.scene import Scene
from sc_layers.pictures.explorer.server import Explorer
from tests.networks import save_small_networks

TOKEN = "a-secret-of-this-test"
HOST = "127.0.0.1:8765"
HEADERS = {"X-Token": TOKEN}
ASKED = {"network": 0, "seed": 3, "truncation": 1, "values": {}, "sight": "image", "code": 0}


def client(explorer: Explorer) -> Any:
    from starlette.testclient import TestClient

    return TestClient(explorer.app(), base_url=f"http://{HOST}", raise_server_exceptions=False)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    network = save_small_networks(tmp_path / "network.safetensors")
    with client(Explorer(lambda: [Scene(open_generator(network))], TOKEN, [HOST])) as connected:
        yield connected


def test_the_address_with_its_token_gives_the_page(page: Any) -> None:
    answer = page.get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    assert "<title>sc-layers explorer</title>" in answer.text


@pytest.mark.parametrize("path", ["/", "/?token=guessed", "/networks", "/?token=%C3%A9"])
def test_without_the_token_nothing_is_served(page: Any, path: str) -> None:
    answer = page.get(path)
    assert answer.status_code == 403
    assert answer.text == "open the whole address that `sc-layers explore` printed, with its token"


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}], ids=str
)
def test_other_pages_are_not_answered_though_they_had_the_token(page: Any, headers: dict[str, str]) -> None:
    assert page.post("/picture", json=ASKED, headers=HEADERS).status_code == 200
    assert page.post("/picture", json=ASKED, headers={**HEADERS, "Origin": f"http://{HOST}"}).status_code == 200
    assert page.post("/picture", json=ASKED, headers={**HEADERS, **headers}).status_code == 403


def test_the_page_may_run_its_own_script_and_ask_its_own_server_only(page: Any) -> None:
    answer = page.get(f"/?token={TOKEN}")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    for tag in ("script", "style"):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"""(src|href)=["']?(http|//)""", answer.text)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/picture", {**ASKED, "network": 1}, "network is a number from 0 to 0"),
        ("/picture", {**ASKED, "values": {"7": 1}}, "code is a whole number from 0 to 2"),
        ("/sweep", {**ASKED, "seed": "x"}, "seed is a whole number"),
        ("/name", {"network": 0, "code": 1}, "a code's number and a text"),
        ("/picture", [1, 2], "network is a number"),
        ("/picture", None, "network is a number"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(page: Any, path: str, body: Any, message: str) -> None:
    answer = page.post(path, content=json.dumps(body), headers=HEADERS)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("body", [b"{", b"[" * 50_000, b" " * 70_000], ids=["cut", "deep", "long"])
def test_a_request_that_is_no_json_of_a_view_is_refused(page: Any, body: bytes) -> None:
    answer = page.post("/picture", content=body, headers=HEADERS)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 2100


def test_a_sweep_is_sent_as_a_gif(page: Any) -> None:
    answer = page.post("/sweep", json=ASKED, headers=HEADERS)
    assert answer.headers["content-type"] == "image/gif"
    assert answer.content.startswith(b"GIF8")


def test_a_name_is_kept_and_sent_back(page: Any) -> None:
    answer = page.post("/name", json={"network": 0, "code": 1, "name": "smile"}, headers=HEADERS)
    assert [row["name"] for row in answer.json()["codes"]] == ["", "smile", ""]


def test_a_wrong_network_gives_a_page_that_says_so_until_it_is_mended(tmp_path: Path) -> None:
    network = tmp_path / "network.safetensors"
    network.write_text("<b>no network</b>")
    with client(Explorer(lambda: [Scene(open_generator(network))], TOKEN, [HOST])) as connected:
        answer = connected.get(f"/?token={TOKEN}")
        assert answer.status_code == 500
        assert "This network cannot be shown" in answer.text
        assert "network.safetensors" in answer.text
        assert "<b>" not in answer.text
        save_small_networks(network)
        assert connected.get(f"/?token={TOKEN}").status_code == 200
