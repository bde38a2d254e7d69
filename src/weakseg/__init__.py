"""Semantic segmentation from image tags."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("weakseg")
except PackageNotFoundError:
    __version__ = "0+source"
