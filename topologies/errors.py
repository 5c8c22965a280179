"""The one exception family of this package."""


class TopologyError(ValueError):
    """A machine room that cannot be built; the message names the value and the limit."""
