"""An application of a user's own, from a file: YAML, or Python that defines `application`.

In YAML:

    name: smooth-and-rank
    number: 200
    stages:
      - {name: smooth, service: ema, shards: 2, options: {alpha: 0.5}}
      - {name: mine, service: "./mine.py:Mine", shards: 2, backups: 1}
    channels:
      - {source: smooth, target: mine, aligned: true}
      - {source: smooth, target: other, answers: false, trigger: {name: rare, share: 0.1, seed: 3}}

A microservice's file stands relative to the application's. `workload: "./mine.py:Requests"` may name a Workload class
that makes requests for it; in Python, `workload` is such a name, or a class that the file itself defines.
"""

from __future__ import annotations

import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from microservices.application import Application, Channel, Stage, Trigger
from microservices.errors import ApplicationError
from microservices.workload import Workload

# What reading raises for a text that is no YAML; ValueError for one that is no UTF-8, for a date that there is not, and
# for a number of thousands of digits.
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


def load_application(path: Path) -> Application:
    """Read an application; raises ApplicationError that names the file and what is wrong in it."""
    try:
        if path.suffix == ".py":
            found = _run(path).get("application")
            if not isinstance(found, Application):
                raise ApplicationError(f"`application` is {found!r}, not an Application")
            return found
        return _application(_of_yaml(path), path.parent.resolve())
    except OSError as error:
        raise ApplicationError(f"{path}: {error.strerror}") from error
    except (*NOT_YAML, ApplicationError) as error:
        raise ApplicationError(f"{path}: {error}") from error


def workload_in(path: Path) -> str:
    """Return what `workload_named` knows the application's own workload by; "" if the file names none.

    Raises ApplicationError.
    """
    try:
        if path.suffix != ".py":
            name = _of_yaml(path)["workload"]
            return _beside(path.parent.resolve(), name) if name else ""
        found = _run(path).get("workload") or ""
        if isinstance(found, str):
            return _beside(path.parent.resolve(), found)
        if not (isinstance(found, type) and issubclass(found, Workload)):
            raise ApplicationError(f"`workload` is {found!r}, not a subclass of Workload")
        return f"{path.resolve()}:{found.__qualname__}"
    except OSError as error:
        raise ApplicationError(f"{path}: {error.strerror}") from error
    except (*NOT_YAML, ApplicationError) as error:
        raise ApplicationError(f"{path}: {error}") from error


def _run(path: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(path.resolve()))
    except OSError:
        raise
    except (Exception, SystemExit) as error:  # a user's file may fail in any way, and is to be named
        raise ApplicationError(f"does not run: {type(error).__name__}: {error}") from error


def _of_yaml(path: Path) -> dict[str, Any]:
    """Return the file's entries, checked, with `workload` always there."""
    data = yaml.safe_load(path.read_text())
    workload = data.pop("workload", "") if isinstance(data, dict) else ""
    if not isinstance(workload, str) or (workload and ":" not in workload):
        raise ApplicationError(f"workload is {workload!r}; it is \"FILE.py:CLASS\"")
    return {**_checked("application", data, Application), "workload": workload}


def _beside(folder: Path, name: str) -> str:
    """Return "FILE.py:CLASS" with the file's whole path; other names as they are."""
    file, colon, class_name = name.rpartition(":")
    return f"{folder / file}:{class_name}" if colon and file.endswith(".py") else name


def _application(entries: dict[str, Any], folder: Path) -> Application:
    stages = tuple(_stage(entry, folder) for entry in _list(entries, "stages"))
    return Application(entries["name"], entries["number"], stages,
                       tuple(_channel(entry) for entry in _list(entries, "channels")))


def _stage(data: Any, folder: Path) -> Stage:
    entry = _checked("stage", data, Stage)
    entry["service"] = _beside(folder, entry["service"])
    return Stage(**entry)


def _channel(data: Any) -> Channel:
    entry = _checked("channel", data, Channel)
    if entry.get("trigger") is not None:
        entry["trigger"] = Trigger(**_checked("trigger", entry["trigger"], Trigger))
    return Channel(**entry)


def _list(entries: dict[str, Any], name: str) -> list[Any]:
    found = entries.get(name) or []
    if not isinstance(found, list):
        raise ApplicationError(f"{name} is {found!r}; it is a list")
    return found


# The annotations of the nouns, as a file may meet them.
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float": (float, int), "Mapping[str, Any]": (dict,)}
_REQUIRED = {"application": ("name", "number", "stages"), "stage": ("name", "service"),
             "channel": ("source", "target"), "trigger": ("name", "share")}


def _checked(what: str, data: Any, noun: Any) -> dict[str, Any]:
    """Return a copy of one entry of the file, its keys and the types of its plain values checked against the noun."""
    known = {f.name: _TYPES.get(str(f.type)) for f in fields(noun)}
    if not isinstance(data, dict):
        raise ApplicationError(f"{what} {data!r}; it is a map of {', '.join(known)}")
    for key, value in data.items():
        if key not in known:
            raise ApplicationError(f"{what} {data.get('name', '')!r}: unknown {key!r}; known: {', '.join(known)}")
        wanted = known[key]
        if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            raise ApplicationError(f"{what}: {key} is {value!r}; it is {' or '.join(t.__name__ for t in wanted)}")
    missing = [key for key in _REQUIRED[what] if key not in data]
    if missing:
        raise ApplicationError(f"{what} {data.get('name', '')!r} lacks {', '.join(missing)}")
    return dict(data)
