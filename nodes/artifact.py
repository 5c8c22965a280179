"""The artifact of a microservice that is pushed to where it is to run: the source file of its class."""

from __future__ import annotations

import inspect
from functools import lru_cache
from pathlib import Path

from microservices.errors import ServiceError
from microservices.service import service_class


@lru_cache
def artifact_of(service: str) -> bytes:
    """Return the bytes of the file that the microservice named `service` stands in.

    Raises ServiceError if there is none.
    """
    try:
        return Path(inspect.getfile(service_class(service))).read_bytes()
    except (OSError, TypeError) as error:
        raise ServiceError(f"the source of microservice {service!r}: {error}") from error
