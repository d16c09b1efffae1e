"""The one table of tolerances that tests compare with."""

from __future__ import annotations

import torch

# Absolute and relative tolerance of a result against the same formula in the same dtype, evaluated in another order.
SAME_FORMULA = {
    torch.float64: {"atol": 1e-10, "rtol": 1e-8},
    torch.float32: {"atol": 2e-5, "rtol": 2e-5},
    torch.float16: {"atol": 4e-3, "rtol": 4e-3},
    torch.bfloat16: {"atol": 3e-2, "rtol": 3e-2},
}

# Against the authors' program, float32. Layers: a fraction of the largest entry. Networks: absolute.
GOLDEN_LAYER_RELATIVE = 1e-5
GOLDEN_NETWORK_ABSOLUTE = 1e-4
GOLDEN_TRAINED_ABSOLUTE = 1e-5
GOLDEN_LOSS = {"atol": 1e-5, "rtol": 1e-5}

# Distances between images of a network, and what their squares spread by, against the authors' program.
GOLDEN_DISTANCE = {"atol": 1e-4, "rtol": 1e-4}

# A float32 result of a few operations against the same numbers in another precision.
ROUNDING = {"atol": 1e-6, "rtol": 1e-6}

# Float32 statistics of planes far from 0 against float64, relative: the mean is rounded once, the deviation a few
# times; the last is where the squares of the plane's own rounding are a thousandth of its variance.
OFFSET_MEAN = {"atol": 0.0, "rtol": 1e-7}
OFFSET_DEVIATION = {"atol": 0.0, "rtol": 2e-6}
OFFSET_COARSE_DEVIATION = {"atol": 0.0, "rtol": 1e-3}

# A float32 gradient through several operations that a compiler fuses, against the same without it.
FUSED_GRADIENT = {"atol": 1e-4, "rtol": 1e-4}

# Mean squared distances along the same images in the opposite order, relative.
REVERSED = 1e-3

# A network in another runtime, whose convolutions sum in another order; absolute.
OTHER_RUNTIME = {"atol": 1e-4, "rtol": 0.0}

# Scores that only counting and float64 sums enter, against the authors' and the reference library's.
SCORE = 1e-9
# Where one of the two sums float32 numbers.
SCORE_FLOAT32 = 1e-7

# What an optimiser's last steps lead to, against another version of the optimiser.
OPTIMISED = 1e-4

# Shares of test points on one side of a classifier that depends on the version of scikit-learn: two in 1000 may change.
CLASSIFIER = 2e-3

# Scores of random forests, against forests of other random numbers.
FOREST = 0.05

# The score of a perfect representation against 1: samples leave it a little short.
PERFECT = 0.01

# A statistic of hundreds to thousands of random numbers against what it is on average.
SAMPLED = 0.05

# Scores of hundreds of votes, against others drawn by another program.
VOTES = 0.08

# Losses over a thousand or two samples against their expectation, relative.
SAMPLED_LOSS = 0.2

# Rendered positions: half a pixel, as the grid of pixels allows.
HALF_PIXEL = {"atol": 0.5, "rtol": 0.0}

# Levels out of 255 of a picture: where only the rounding differs, and behind lossy compression.
LEVEL = 1
LOSSY_LEVELS = 4


def assert_close_to_largest(actual: torch.Tensor, expected: torch.Tensor, fraction: float, what: str = "") -> float:
    """Assert that `actual` differs from `expected` by at most `fraction` of the largest entry; return the deviation."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    largest = expected.abs().max().item() or 1.0
    deviation = (actual.double() - expected.double()).abs().max().item() / largest
    assert deviation <= fraction, f"{what}: deviates by {deviation:.2e} of the largest entry, allowed {fraction:.0e}"
    return deviation


def assert_close_absolute(actual: torch.Tensor, expected: torch.Tensor, limit: float, what: str = "") -> float:
    """Assert that `actual` differs from `expected` by at most `limit`; return the deviation."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    deviation = (actual.double() - expected.double()).abs().max().item()
    assert deviation <= limit, f"{what}: deviates by {deviation:.2e}, allowed {limit:.0e}"
    return deviation
