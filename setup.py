"""Maps the top-level folders `cuda_ops/` and `integrations/` into the package, and bakes native kernels into a wheel.

Everything else is in pyproject.toml. With SC_LAYERS_PREBUILD set, a wheel carries compiled kernels: `1` for the CPU's,
or the names of the backends, such as `cpu,cuda`. That needs PyTorch, ninja and a compiler while the wheel is built:

    SC_LAYERS_PREBUILD=1 pip wheel --no-build-isolation --no-deps .
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
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
        from sc_layers.cuda_ops import build

        recipes = [build.RECIPES[name]() for name in PREBUILD.split(",")]
        build.prebuild(Path(self.build_lib) / "sc_layers" / "cuda_ops" / build.PREBUILT.name, recipes)


class PlatformWheel(bdist_wheel):
    """Kernels are for one platform, but for every Python: they do not touch its interface."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


def _subpackages(folder: str) -> dict[str, str]:
    """Package name -> folder, for a top-level folder that is installed inside `sc_layers`."""
    packages = {f"sc_layers.{folder}": folder}
    for name in find_packages(folder):
        packages[f"sc_layers.{folder}.{name}"] = f"{folder}/{name.replace('.', '/')}"
    return packages


own = {f"sc_layers.{name}": f"sc_layers/{name.replace('.', '/')}" for name in find_packages("sc_layers")}
package_dir = {"sc_layers": "sc_layers", **own, **_subpackages("cuda_ops"), **_subpackages("integrations")}

prebuild = (
    {"cmdclass": {"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel}, "distclass": PlatformDistribution}
    if PREBUILD
    else {}
)

setup(packages=list(package_dir), package_dir=package_dir, **prebuild)
