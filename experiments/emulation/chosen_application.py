"""Which application a command means, by name or by file, and where its requests come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.clients.payload_workload import TIME_TRIED_S, expected_answers
from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.application_file import load_application, workload_in
from microservices.applications import PAPER_BACKUPS, PAPER_SHARDS, application_named
from microservices.errors import ServiceError

FILE_SUFFIXES = (".yaml", ".yml", ".py")
MAX_PAYLOADS = 10_000
MAX_PAYLOAD_BYTES = 8000


def is_file(name: str) -> bool:
    return name.endswith(FILE_SUFFIXES)


def application_of(name: str, shards: int = PAPER_SHARDS, backups: int = PAPER_BACKUPS) -> Application:
    """Return one of Table 3's applications or a microservice alone, by name, or the one that a user's file defines.

    A file says itself how many shards and backups there are. Raises ApplicationError.
    """
    return load_application(Path(name)) if is_file(name) else application_named(name, shards, backups)


@dataclass(frozen=True, slots=True)
class Requests:
    """Where requests come from: `workload` as workload_named knows it, or `payloads`, sent in turn, over and over.

    `direct` asks for every reply to be held against a direct evaluation; `checked` says in words what is checked.
    """

    workload: str
    payloads: tuple[bytes, ...] = ()
    direct: bool = False
    checked: str = "every reply, by the application's workload"


def requests_of(name: str, application: Application, payloads_file: Path | None, sequential: bool) -> Requests:
    """Return the requests for `application`, which `name` named; `sequential` if one goes out at a time.

    Raises ExperimentError if nothing says what to send, or if the requests of the file cannot be sent; ServiceError if
    a handler fails on one of them in another way than by refusing it.
    """
    if payloads_file is not None:
        return _of_file(payloads_file, application, sequential)
    if not is_file(name):
        return Requests(name)
    workload = workload_in(Path(name))
    if not workload:
        raise ExperimentError(f"{name} says nothing of its requests: give --payloads FILE with one on each line, or "
                              "name a Workload class in it")
    return Requests(workload)


def read_payloads(path: Path) -> tuple[bytes, ...]:
    """Return the lines of a file, without their ends; raises ExperimentError if one cannot be a request."""
    try:
        lines = [line.rstrip(b"\r") for line in path.read_bytes().removesuffix(b"\n").split(b"\n")]
    except OSError as error:
        raise ExperimentError(f"{path}: {error.strerror}") from error
    if len(lines) > MAX_PAYLOADS:
        raise ExperimentError(f"{path} has {len(lines)} lines; the limit is {MAX_PAYLOADS}")
    for number, line in enumerate(lines, start=1):
        if not 1 <= len(line) <= MAX_PAYLOAD_BYTES:
            raise ExperimentError(f"{path}, line {number}: a request of {len(line)} bytes; the limits are 1 and "
                                  f"{MAX_PAYLOAD_BYTES}")
    return tuple(lines)


def _of_file(path: Path, application: Application, sequential: bool) -> Requests:
    payloads = read_payloads(path)
    answers = _tried(path, application, payloads, 0.0)
    if not sequential:
        return Requests("", payloads, checked="only that there is one reply: with several requests under way at once "
                                              "their order, and so the replies, are not known beforehand")
    if answers != _tried(path, application, payloads, TIME_TRIED_S):
        return Requests("", payloads, checked="only that there is one reply: the replies depend on the time, which a "
                                              "direct evaluation does not know")
    return Requests("", payloads, True, "every reply, against a direct evaluation in the client's process")


def _tried(path: Path, application: Application, payloads: Sequence[bytes], step_s: float) -> list[object]:
    try:
        return list(expected_answers(application, payloads, step_s))
    except ServiceError:
        raise
    except Exception as error:  # a user's handler may raise anything; better now than on a rack
        raise ServiceError(f"{application.name} fails on a request of {path}: "
                           f"{type(error).__name__}: {error}") from error
