"""Pictures of what a generator does: grids, sweeps of codes, masks."""

from .plots import code_sliders, plot_gates, plot_masks, plot_traversal
from .sweeps import Sweep, sweep_codes

__all__ = ["Sweep", "code_sliders", "plot_gates", "plot_masks", "plot_traversal", "sweep_codes"]
