"""Maps the top-level folders `cuda_ops/` and `integrations/` into the package; everything else is in pyproject.toml."""

from __future__ import annotations

from setuptools import find_packages, setup


def _subpackages(folder: str) -> dict[str, str]:
    """Package name -> folder, for a top-level folder that is installed inside `sc_layers`."""
    packages = {f"sc_layers.{folder}": folder}
    for name in find_packages(folder):
        packages[f"sc_layers.{folder}.{name}"] = f"{folder}/{name.replace('.', '/')}"
    return packages


own = {f"sc_layers.{name}": f"sc_layers/{name.replace('.', '/')}" for name in find_packages("sc_layers")}
package_dir = {"sc_layers": "sc_layers", **own, **_subpackages("cuda_ops"), **_subpackages("integrations")}

setup(packages=list(package_dir), package_dir=package_dir)
