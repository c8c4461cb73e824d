"""The one error that a user of this package meets."""


class CaptureError(Exception):
    """Something cannot be captured or written; the message names what was found and the way out, if any."""
