"""Results of sweeps that never ran, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from sc_layers.sweep.results import FAILED, FINISHED, Result

TINY = {
    "data": "shapes3d",
    "resolution": 32,
    "preset": "demo",
    "batch": 8,
    "kimg": 0.016,
    "module-list": "[Const-8, ResConv-up-1, C_spgroup-2-2, ResConv-up-1, C_spgroup-1-1, ResConv-up-1]",
}


def result(method: str, seed: int, tpl: float, dci: float, **settings: Any) -> Result:
    """A run that finished."""
    scores = {"tpl_small_0.3": tpl, "dci": dci}
    setting = {"method": method, **settings}
    return Result(setting, seed, settings, {"metrics": "tpl_small_0.3,dci"}, FINISHED, scores, seed + 3, "run/network")


def herd() -> list[Result]:
    """Two methods at two weights with three seeds each, of which one failed; less TPL goes with more DCI."""
    found = [
        result(method, seed, tpl + seed, 1 - (tpl + seed) / 100, **{"code-weight": weight})
        for method, weight, tpl in (("ours", 0.1, 10), ("ours", 0.01, 20), ("theirs", 0.1, 30), ("theirs", 0.01, 40))
        for seed in range(3)
    ]
    last = found.pop()
    return [*found, Result(last.setting, last.seed, last.train, last.measure, FAILED, error="diverged")]
