"""The one exception family of this package."""


class ExperimentError(Exception):
    """A measurement that cannot be made or read; the message names what is wrong and where."""


class CaptureError(ExperimentError, ValueError):
    """A capture that cannot be read or judged; the message names the file and the byte offset or what is missing."""
