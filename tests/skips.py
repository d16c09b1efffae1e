"""A pytest plugin for machines that must run everything: there, a skip that nobody wrote down is a failure.

With SC_LAYERS_CI=1 in the environment, as `.ci/run` sets it, a test or module that skips for a reason not in `EXPECTED`
fails with that reason, so that a broken installation cannot hide as a skip. The end of every run says how many tests
want a checkout of a code base that we patch or attach to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest

# What a machine may lack, as a regular expression that matches the beginning of the skip's reason.
CHECKOUT = r"set \w+_DIR to a checkout of |\w+_DIR does not name a checkout"
VARIABLES = ("STYLEGAN2_ADA_DIR", "STYLEGAN3_DIR", "ROSINALITY_DIR", "EG3D_DIR", "R3GAN_DIR", "PROJECTED_GAN_DIR")
EXPECTED = (
    CHECKOUT,
    r"no CUDA device here",
    r"needs two CUDA devices",
    r"there is a GPU here",
    r"no CUDA toolkit here",
    r"no CUDA compiler found ",
    r"the CUDA toolkit in .* PyTorch was built with CUDA ",
    r"this PyTorch was built without CUDA",
    r"this toolkit does not know sm_",
    r"this processor has no avx",
    r"no compute-sanitizer on the PATH",
    r"no file system can be mounted here",
    r"no chromium on the PATH",
    r"needs the right to give files away",
    r"(projector\.py|rosinality's data sets) needs? ",  # packages of theirs; only asked for where there is a checkout
)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why the test or module was skipped, without pytest's own "Skipped: "."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _is_skip(report: pytest.TestReport | pytest.CollectReport) -> bool:
    return report.skipped and not hasattr(report, "wasxfail")


def _fail_if_unexpected(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("SC_LAYERS_CI") != "1" or not _is_skip(report):
        return
    reason = reason_of(report)
    if not any(re.match(pattern, reason) for pattern in EXPECTED):
        report.outcome = "failed"
        report.longrepr = f"skipped, for a reason that tests/skips.py does not list: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_unexpected(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_unexpected(report)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    missing = sum(1 for report in reports if _is_skip(report) and re.match(CHECKOUT, reason_of(report)))
    if missing:
        line = f"{missing} TESTS DID NOT RUN FOR WANT OF A CHECKOUT ({', '.join(VARIABLES)})"
        terminalreporter.write_line(line, red=True, bold=True)
