"""The one exception family of this package."""


class ServiceError(Exception):
    """A request that a microservice cannot answer, or a microservice that cannot be made; says which and why.

    Raised by a handler, it becomes the error reply to that one request.
    """


class StateError(ServiceError, ValueError):
    """Reliable state that is not what it should be: a wrong type, a damaged snapshot, a gap in a change log."""


class ApplicationError(ServiceError, ValueError):
    """An application whose graph cannot run; the message names the stage or channel."""
