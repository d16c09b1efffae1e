"""Many trainings of one grid of settings, measured alike, and the tables and figures of the paper from them."""

from .grid import Grid, Run, read_grid
from .results import Result, load_results

__all__ = ["Grid", "Result", "Run", "load_results", "read_grid"]
