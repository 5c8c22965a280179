"""The contract of a microservice: `handle(request, state) -> outputs`.

A microservice is what a user writes. Its handler is deterministic given the request and the state, and keeps what it
remembers in reliable collections only, so the platform can move, replicate and re-shard it (paper section 2.1). What it
is made with (rules, keys, tables) is read-only. A minimal one:

    class Shout(Microservice):
        name = "shout"
        memory_mb = 1

        def handle(self, request, state):
            return (Output(request.payload.upper()),)
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from microservices.errors import ServiceError
from microservices.measured import Profile
from microservices.state import State

REPLY = "@client"


class Request(NamedTuple):
    """One request: its bytes, and the emulated time at which its execution starts."""

    payload: bytes
    now_s: float = 0.0


class Output(NamedTuple):
    """Bytes that leave a handler.

    `to` None: along every channel of the stage, or to the client where there is none. The name of a successor
    stage: there only. REPLY: straight back to the client, past everything that would follow.
    """

    payload: bytes
    to: str | None = None


class Accelerator(Enum):
    """What a SmartNIC has in hardware for a microservice (paper section 4)."""

    CRYPTO = "crypto coprocessor"
    DFA = "deterministic finite automata unit"
    FETCH_AND_ADD = "atomic fetch-and-add units"
    FPU = "single-precision floating point"


class Microservice(ABC):
    """What runs at a node of an application's graph. Subclasses say what they are in class attributes.

    `memory_mb` is the footprint that placement reserves for one instance, code and state (ours: the paper gives none).
    `host_only` pins the microservice to host processors, as the paper does with SQL. `profile` says what it costs in
    time and power; the sixteen that Table 1 measures need none, and without one a microservice cannot be paced.
    """

    name: ClassVar[str]
    memory_mb: ClassVar[float]
    stateful: ClassVar[bool] = False
    accelerators: ClassVar[frozenset[Accelerator]] = frozenset()
    host_only: ClassVar[bool] = False
    profile: ClassVar[Profile | None] = None

    def new_state(self) -> State:
        """Return the state of a fresh instance; the same collections every time."""
        return State()

    def key_of(self, payload: bytes) -> bytes:
        """Return the key that a request is sharded by; the same payload always gives the same key.

        Called by the sender, before any check of the payload, so it must take any bytes.
        """
        return payload

    @abstractmethod
    def handle(self, request: Request, state: State) -> Sequence[Output]:
        """Answer one request; raises ServiceError if it cannot, which becomes the client's error reply."""


# Where the microservices of this package stand; imported on first use, so that a node loads only what it runs.
BUILT_IN: dict[str, str] = {
    "api_gateway": "microservices.api_gateway:ApiGateway",
    "bayes": "microservices.bayes:Bayes",
    "bm25": "microservices.bm25:Bm25",
    "count": "microservices.count:Count",
    "ddos": "microservices.ddos:Ddos",
    "ema": "microservices.ema:Ema",
    "flow_monitor": "microservices.flow_monitor:FlowMonitor",
    "ipsec": "microservices.ipsec:Ipsec",
    "knn": "microservices.knn:Knn",
    "kvs": "microservices.kvs:Kvs",
    "natv4": "microservices.natv4:Natv4",
    "nids": "microservices.nids:Nids",
    "recommend": "microservices.recommend:Recommend",
    "spike": "microservices.spike:Spike",
    "sql": "microservices.sql:Sql",
    "top_ranker": "microservices.top_ranker:TopRanker",
}


def is_known(name: str) -> bool:
    """Say whether `service_class` would look for it: a built-in, or in the form of a user's own."""
    return name in BUILT_IN or ":" in name


def service_class(name: str) -> type[Microservice]:
    """Find a microservice: a built-in's name, "package.module:Class", or "/some/file.py:Class".

    Raises ServiceError if there is none.
    """
    if not is_known(name):
        raise ServiceError(f"unknown microservice {name!r}; built in: {', '.join(sorted(BUILT_IN))}; your own is "
                           "MODULE:CLASS or FILE.py:CLASS")
    return class_named(BUILT_IN.get(name, name), Microservice)


def class_named(name: str, parent: type[Any]) -> type[Any]:
    """Load the subclass of `parent` that is named "package.module:Class" or "/some/file.py:Class".

    Raises ServiceError if it is not there, or if its file does not run.
    """
    module_name, _, class_name = name.rpartition(":")
    try:
        of_file = module_name.endswith(".py")
        module = _module_of_file(Path(module_name)) if of_file else importlib.import_module(module_name)
        found: Any = getattr(module, class_name)
    except (ImportError, OSError, AttributeError, TypeError, ValueError) as error:  # also "..x:Y" and ":Y"
        raise ServiceError(f"{parent.__name__.lower()} {name!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, parent)):
        raise ServiceError(f"{parent.__name__.lower()} {name!r}: {found!r} is not a subclass of {parent.__name__}")
    return found


def new_service(name: str, **options: Any) -> Microservice:
    """Make a microservice by name, with the options of its constructor; raises ServiceError."""
    try:
        return service_class(name)(**options)
    except TypeError as error:
        raise ServiceError(f"microservice {name!r} with options {sorted(options)}: {error}") from error


def _module_of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"user file {path}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and msgspec look a class's module up by its name. That is made from the path, so that a user's file
    # called json.py stands in nobody's way.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file may fail in any way, and is to be named
        sys.modules.pop(spec.name, None)
        if isinstance(error, OSError):
            raise
        raise ServiceError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return module
