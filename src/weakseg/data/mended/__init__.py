"""Masks that were drawn or mended in another tool, as the tool gives them back.

A new tool is a file here and a line in `TOOLS`. `weakseg export` writes what these tools take.
"""

from pathlib import Path

from weakseg.data.mended import coco, cvat, label_studio, panoptic, yolo
from weakseg.data.mended.base import Tool

TOOLS: tuple[Tool, ...] = (panoptic.TOOL, coco.TOOL, label_studio.TOOL, cvat.TOOL, yolo.TOOL)
"""In the order in which a path is tried."""


def find_tool(path: Path) -> Tool | None:
    """The tool that gave a file or folder back; None if it is none of these."""
    return next((tool for tool in TOOLS if tool.matches(path)), None)
