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

A microservice's file stands relative to the application's.
"""

from __future__ import annotations

import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from microservices.application import Application, Channel, Stage, Trigger
from microservices.errors import ApplicationError


def load_application(path: Path) -> Application:
    """Read an application; raises ApplicationError that names the file and what is wrong in it."""
    try:
        if path.suffix == ".py":
            found = runpy.run_path(str(path)).get("application")
            if not isinstance(found, Application):
                raise ApplicationError(f"`application` is {found!r}, not an Application")
            return found
        return _application(yaml.safe_load(path.read_text()), path.parent)
    except OSError as error:
        raise ApplicationError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ApplicationError) as error:
        raise ApplicationError(f"{path}: {error}") from error


def _application(data: Any, folder: Path) -> Application:
    entries = _checked("application", data, Application)
    stages = tuple(_stage(entry, folder) for entry in _list(entries, "stages"))
    return Application(entries["name"], entries["number"], stages,
                       tuple(_channel(entry) for entry in _list(entries, "channels")))


def _stage(data: Any, folder: Path) -> Stage:
    entry = _checked("stage", data, Stage)
    file, colon, name = entry["service"].rpartition(":")
    if colon and file.endswith(".py"):
        entry["service"] = f"{folder / file}:{name}"
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
