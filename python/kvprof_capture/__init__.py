"""Captures of what kvprof measures of a transformers model's attention."""

from .capture import capture
from .errors import CaptureError
from .version import __version__

__all__ = ["CaptureError", "__version__", "capture"]
