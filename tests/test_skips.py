"""Where SC_LAYERS_CI=1, only the skips that are written down remain skips."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

EXPECTED = "import pytest\ndef test_card():\n    pytest.skip('no CUDA device here')\n"
BROKEN = "import pytest\ndef test_broken():\n    pytest.importorskip('no_such_package')\n"
BROKEN_MODULE = "import pytest\npytest.importorskip('no_such_package')\ndef test_never_seen():\n    pass\n"
CHECKOUTS = """
import pytest
@pytest.mark.parametrize("variable", ["STYLEGAN2_ADA_DIR", "ROSINALITY_DIR"])
def test_checkout(variable):
    pytest.skip(f"set {variable} to a checkout of somewhere")
"""
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_known():\n    assert False\n"


def outcome_of(pytester: pytest.Pytester, source: str) -> tuple[pytest.RunResult, dict[str, int]]:
    pytester.makepyfile(source)
    result = pytester.runpytest_inprocess("-p", "tests.skips")
    return result, result.parseoutcomes()


@pytest.fixture
def complete_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_LAYERS_CI", "1")


@pytest.mark.usefixtures("complete_machine")
def test_expected_skip_stays_a_skip(pytester: pytest.Pytester) -> None:
    assert outcome_of(pytester, EXPECTED)[1] == {"skipped": 1}


@pytest.mark.usefixtures("complete_machine")
def test_other_skip_fails_and_tells_its_reason(pytester: pytest.Pytester) -> None:
    result, outcome = outcome_of(pytester, BROKEN)
    assert outcome == {"failed": 1}
    result.stdout.fnmatch_lines(["*tests/skips.py does not list: could not import 'no_such_package'*"])


@pytest.mark.usefixtures("complete_machine")
def test_skipped_module_fails_the_collection(pytester: pytest.Pytester) -> None:
    assert outcome_of(pytester, BROKEN_MODULE)[1] == {"errors": 1}


@pytest.mark.usefixtures("complete_machine")
def test_expected_failure_is_no_skip(pytester: pytest.Pytester) -> None:
    assert outcome_of(pytester, EXPECTED_FAILURE)[1] == {"xfailed": 1}


def test_any_skip_is_allowed_elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SC_LAYERS_CI", raising=False)
    assert outcome_of(pytester, BROKEN)[1] == {"skipped": 1}


def test_missing_checkouts_are_counted_aloud(pytester: pytest.Pytester) -> None:
    result, _ = outcome_of(pytester, CHECKOUTS)
    result.stdout.fnmatch_lines(["2 TESTS DID NOT RUN FOR WANT OF A CHECKOUT *"])
