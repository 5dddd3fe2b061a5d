"""Loads files with layers of SDNQ, of ComfyUI's own formats and plain ones into ComfyUI."""

try:
    import tensorpress.torch  # noqa: F401
except ModuleNotFoundError as e:
    if (e.name or "").partition(".")[0] != "tensorpress":
        raise
    raise ModuleNotFoundError(
        "the package tensorpress is missing: pip install .../tensorpress/python[torch], of a checkout of "
        "tensorpress, with the Python that runs ComfyUI",
        name=e.name,
    ) from e

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
