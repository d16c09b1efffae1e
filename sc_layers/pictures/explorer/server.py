"""The explorer's server: one page and what it asks for, to holders of the token and from its own address only."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from ..._optional import require
from .scene import BOUND, Scene, View

LOOPBACK = "127.0.0.1"
_LARGEST_REQUEST = 65_536  # bytes
_LONGEST_MESSAGE = 2000  # characters


def _part(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """What a content security policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Page:
    """The page, with its style and script inside; the policy lets it run these alone and ask its own server only."""

    def __init__(self) -> None:
        self.style, self.script = _part("page.css"), _part("page.js")
        self.policy = "; ".join(
            [
                "default-src 'none'",
                f"script-src {_source(self.script)}",
                f"style-src {_source(self.style)}",
                "img-src data: blob:",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ]
        )

    def html(self, content: str, script: bool = True) -> str:
        """The page around its content.

        Args:
            content: HTML of the body.
            script: whether the script runs in it.
        """
        code = f"<script>{self.script}</script>" if script else ""
        return _part("page.html").format(style=self.style, content=content, script=code)


class Explorer:
    """The server.

    Args:
        open_scenes: opens the networks. Where it raises, the page says what, and loading it again tries again.
        token: what every request has to carry, as `?token=` or in the header `X-Token`.
        hosts: the values of the header `Host` that are served; None serves all.

    Raises:
        ImportError: starlette is missing.
    """

    def __init__(self, open_scenes: Callable[[], Sequence[Scene]], token: str, hosts: Sequence[str] | None) -> None:
        self.open_scenes, self.token, self.hosts = open_scenes, token, hosts
        self.page = Page()
        self.scenes: list[Scene] | None = None
        self.lock = threading.Lock()  # one picture at a time has all the cores
        self.responses = require("starlette.responses", "explore")
        self.in_thread = require("starlette.concurrency", "explore").run_in_threadpool

    def app(self) -> Any:
        """The application of Starlette."""
        route = require("starlette.routing", "explore").Route
        routes = [
            route("/", self._answering(self._show_page), methods=["GET"]),
            route("/networks", self._answering(self._list_networks), methods=["GET"]),
            route("/picture", self._answering(self._draw_picture), methods=["POST"]),
            route("/sweep", self._answering(self._draw_sweep), methods=["POST"]),
            route("/name", self._answering(self._give_name), methods=["POST"]),
        ]
        return require("starlette.applications", "explore").Starlette(routes=routes)

    def _answering(self, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The endpoint of what gets parsed JSON and computes a response, in a thread."""

        async def endpoint(request: Any) -> Any:
            refusal = self._refusal(request)
            if refusal:
                response = self.responses.PlainTextResponse(refusal, 403)
            else:
                body = bytearray()
                async for part in request.stream():
                    body += part
                    if len(body) > _LARGEST_REQUEST:
                        break
                response = await self.in_thread(self._answer, answer, bytes(body))
            response.headers["Content-Security-Policy"] = self.page.policy
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers["Cache-Control"] = "no-store"
            return response

        return endpoint

    def _answer(self, answer: Callable[[Any], Any], body: bytes) -> Any:
        try:
            if len(body) > _LARGEST_REQUEST:
                raise ValueError(f"a request has at most {_LARGEST_REQUEST} bytes")
            asked = json.loads(body) if body else {}
            with self.lock:
                return answer(asked)
        except (ValueError, OSError, RuntimeError, RecursionError) as error:
            return self.responses.JSONResponse({"error": _told(error)}, 400)

    def _refusal(self, request: Any) -> str | None:
        """Why a request is not answered, or None.

        The token keeps other users of the machine out, the host and the origin other pages of the same browser.
        """
        host = request.headers.get("host", "")
        if self.hosts is not None and host not in self.hosts:
            return f"this server is {' or '.join(self.hosts)}, not {host[:100]}"
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"{origin[:100]} may not ask this server"
        given = request.headers.get("x-token") or request.query_params.get("token", "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "open the whole address that `sc-layers explore` printed, with its token"
        return None

    def _opened(self) -> list[Scene]:
        if self.scenes is None:
            self.scenes = list(self.open_scenes())
        return self.scenes

    def _scene_of(self, asked: Any) -> Scene:
        scenes = self._opened()
        index = asked.get("network") if isinstance(asked, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(scenes):
            raise ValueError(f"network is a number from 0 to {len(scenes) - 1}")
        return scenes[index]

    def problem(self) -> str | None:
        """Why the networks can't be opened, or None where they are open."""
        try:
            self._opened()
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            return _told(error)
        return None

    def _show_page(self, _: Any) -> Any:
        problem = self.problem()
        if problem is not None:
            content = (
                f'<main class="failed"><h1>This network cannot be shown</h1><p role="alert">{html.escape(problem)}</p>'
                "<p>When it is mended, load this page again.</p></main>"
            )
            return self.responses.HTMLResponse(self.page.html(content, script=False), 500)
        return self.responses.HTMLResponse(self.page.html(_part("content.html")))

    def _list_networks(self, _: Any) -> Any:
        networks = [{"name": str(scene.opened.path), "codes": scene.codes()} for scene in self._opened()]
        truncations = [scene.opened.truncation for scene in self._opened()]
        return self.responses.JSONResponse({"networks": networks, "truncation": truncations[0], "bound": BOUND})

    def _draw_picture(self, asked: Any) -> Any:
        scene = self._scene_of(asked)
        start = time.perf_counter()
        picture = scene.draw(View.read(asked, scene.opened.generator.num_codes))
        return self.responses.JSONResponse(
            {
                "image": _data_address(picture.image),
                "masks": {code: _data_address(mask) for code, mask in picture.masks.items()},
                "codes": picture.codes,
                "command": picture.command,
                "milliseconds": 1000 * (time.perf_counter() - start),
            }
        )

    def _draw_sweep(self, asked: Any) -> Any:
        scene = self._scene_of(asked)
        gif = scene.sweep(View.read(asked, scene.opened.generator.num_codes))
        return self.responses.Response(gif, media_type="image/gif")

    def _give_name(self, asked: Any) -> Any:
        scene = self._scene_of(asked)
        code, name = asked.get("code"), asked.get("name")
        if not isinstance(code, int) or not isinstance(name, str):
            raise ValueError("a name is given as a code's number and a text")
        scene.rename(code, name)
        return self.responses.JSONResponse({"codes": scene.codes()})


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_MESSAGE] or type(error).__name__


def _data_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def serve(open_scenes: Callable[[], Sequence[Scene]], host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve the explorer until it is interrupted.

    Args:
        open_scenes: opens the networks.
        host: address to listen at; "127.0.0.1" is reached from this machine alone. At any other, whoever has the token
            is served.
        port: where to listen; 0 takes a free one.
        announce: gets lines for the user: why a network can't be opened, and the address of the page.

    Raises:
        OSError: the port is taken, or the host is no address of this machine.
        ImportError: starlette or uvicorn is missing.
    """
    uvicorn = require("uvicorn", "explore")
    token = secrets.token_urlsafe(24)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        port = listener.getsockname()[1]
        hosts = [f"{LOOPBACK}:{port}", f"localhost:{port}"] if host in (LOOPBACK, "localhost") else None
        explorer = Explorer(open_scenes, token, hosts)
        problem = explorer.problem()
        if problem is not None:
            announce(f"the page will say: {problem}")
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}")
        server = uvicorn.Server(uvicorn.Config(explorer.app(), log_level="error", access_log=False, lifespan="off"))
        server.run(sockets=[listener])
