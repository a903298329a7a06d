"""Finds the sub-packages of every mapped folder; everything else about the package is in pyproject.toml."""

from setuptools import find_packages, setup

# import name -> folder at the top of the repository (the same mapping as [tool.setuptools.package-dir])
ROOMS = {
    "moec": "moec",
    "moec.frontend": "frontend",
    "moec.passes": "passes",
    "moec.backends": "backends",
    "moec.runtime": "runtime",
}

setup(
    packages=[
        name
        for package, folder in ROOMS.items()
        for name in [package, *(f"{package}.{sub}" for sub in find_packages(folder))]
    ]
)
