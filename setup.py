"""Bakes native kernels into a wheel.

Everything else is in pyproject.toml. With SC_LAYERS_PREBUILD set, a wheel carries compiled kernels: `1` for the CPU's,
or the names of the backends, such as `cpu,cuda`. That needs PyTorch, ninja and a compiler while the wheel is built:

    SC_LAYERS_PREBUILD=1 pip wheel --no-build-isolation --no-deps .
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PREBUILD = os.environ.get("SC_LAYERS_PREBUILD", "").replace("1", "cpu")


class BuildWithKernels(build_py):
    """Copies the sources, then compiles the kernels beside them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        sys.path.insert(0, str(Path(__file__).parent))
        from sc_layers.ops import building

        recipes = [building.RECIPES[name]() for name in PREBUILD.split(",")]
        building.prebuild(Path(self.build_lib) / "sc_layers" / "ops" / building.PREBUILT.name, recipes)


class PlatformWheel(bdist_wheel):
    """Kernels are for one platform, but for every Python: they do not touch its interface."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


prebuild = (
    {"cmdclass": {"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel}, "distclass": PlatformDistribution}
    if PREBUILD
    else {}
)

setup(**prebuild)
