"""`sc-layers doctor`; what it reports is tested beside the report."""

from __future__ import annotations

import pytest

from sc_layers.cli import _diagnosis
from tests.cli.running import run


@pytest.mark.parametrize(("arguments", "compile_now"), [([], False), (["--build"], True)])
@pytest.mark.parametrize(("fine", "status"), [(True, 0), (False, 1)])
def test_exit_status_says_whether_something_is_broken(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], compile_now: bool, fine: bool, status: int
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(_diagnosis, "diagnose", lambda build: asked.append(build) or fine)
    assert run("doctor", *arguments).exit_code == status
    assert asked == [compile_now]
