"""How far each code moves the picture, and what is written beside it."""

from __future__ import annotations

from collections.abc import Mapping

from ..checkpoints.opening import Opened
from ..metrics.distances import FeatureDistance
from ..metrics.generators import Sampling
from ..metrics.traversal_length import TraversalLength, traversal_perceptual_length


def measure_codes(opened: Opened, distance: FeatureDistance) -> TraversalLength:
    """The traversal perceptual length of every code, by `tpl_small_0.3`.

    Args:
        opened: the generator.
        distance: an image distance of `metrics.make_distance`.

    Source: paper Sec. 3.3.
    """
    sampling = Sampling(opened.latents, device=opened.device)
    return traversal_perceptual_length(opened.generator, settings="tpl_small_0.3", distance=distance, sampling=sampling)


def code_label(code: int, names: Mapping[int, str], tpl: TraversalLength | None = None) -> str:
    """What stands beside a code, in lines: its number, its name, its traversal perceptual length with standard error.

    Args:
        code: its number.
        names: what codes are called, as far as they have names.
        tpl: what was measured, or None.
    """
    lines = [f"code {code}"]
    if code in names:
        lines.append(names[code])
    if tpl is not None:
        error = float(tpl.std_per_dim[code]) / len(tpl.per_traversal) ** 0.5
        lines.append(f"tpl {float(tpl.per_dim[code]):.3g} \u00b1 {error:.2g}")
    return "\n".join(lines)
