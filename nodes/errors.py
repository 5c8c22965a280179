"""The one exception family of this package."""


class NodeError(Exception):
    """Something a compute node, or the world it stands in, cannot do; the message says what to do next."""


class WireError(NodeError, ValueError):
    """Bytes that are not the message they should be."""


class WorldError(NodeError):
    """A machine room that cannot be made, found or taken down."""
