"""The version of this package, as captures name it."""

__version__ = "0.1.0"
