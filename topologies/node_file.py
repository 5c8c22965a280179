"""Servers, SmartNICs and processors of one's own, with power and price, from a small TOML file (docs/topologies.md).

    [servers.mybox]
    host = "e5-2680v3"
    smartnics = ["liquidio", "liquidio"]
    plain_nics_gbps = [10.0]
    idle_watts = 110
    peak_watts = 250
    cost_usd = 5200

`[processors.NAME]` and `[smartnics.NAME]` describe what the catalogue does not have. `read_nodes` checks everything and
names the value and the limit; nothing is guessed but what has a default here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from topologies.catalog import (
    CN6880,
    LIQUIDIO2_BOTH_PORTS,
    LIQUIDIO2_ONE_PORT,
    LIQUIDIO_PCIE_GBPS,
    OCTEON_LIQUIDIO2,
    SERVER_NAME,
    SYSTEMS,
    XEON_8160,
    XEON_E5_2620_PAIR,
    XEON_E5_2680V3,
    add_systems,
)
from topologies.cluster import PlainNic, Processor, Server, SmartNic
from topologies.errors import TopologyError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROCESSORS: dict[str, Processor] = {"e5-2680v3": XEON_E5_2680V3, "2xe5-2620": XEON_E5_2620_PAIR, "8160": XEON_8160,
                                    "cn6880": CN6880, "octeon": OCTEON_LIQUIDIO2}
SMARTNICS: dict[str, SmartNic] = {"liquidio": LIQUIDIO2_ONE_PORT, "liquidio-both-ports": LIQUIDIO2_BOTH_PORTS}
MAX_FILE_BYTES = 1_000_000

# Wide enough for any machine that fits a rack, narrow enough to catch megahertz, milliwatts and bits per second.
Cores = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Gigahertz = Annotated[float, msgspec.Meta(ge=0.1, le=10)]
Gigabytes = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
Gbps = Annotated[float, msgspec.Meta(ge=0.01, le=1000)]
Watts = Annotated[float, msgspec.Meta(ge=0, le=20_000)]
Usd = Annotated[float, msgspec.Meta(ge=0, le=10_000_000)]
WorkPerClock = Annotated[float, msgspec.Meta(ge=0.01, le=100)]


class _Processor(msgspec.Struct, forbid_unknown_fields=True):
    cores: Cores
    clock_ghz: Gigahertz
    memory_gb: Gigabytes
    family: str = "xeon"
    work_per_clock: WorkPerClock = 1.0
    busy_watts: Watts | None = None


class _SmartNic(msgspec.Struct, forbid_unknown_fields=True):
    processor: str
    port_gbps: Gbps
    pcie_gbps: Gbps = LIQUIDIO_PCIE_GBPS


class _Server(msgspec.Struct, forbid_unknown_fields=True):
    host: str
    idle_watts: Watts
    peak_watts: Watts
    cost_usd: Usd
    smartnics: list[str] = []
    plain_nics_gbps: list[Gbps] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    processors: dict[str, Any] = {}
    smartnics: dict[str, Any] = {}
    servers: dict[str, Any] = {}


def use_nodes(path: Path) -> dict[str, Server]:
    """Read a file and let `cluster_named` know its servers; raises TopologyError."""
    servers = read_nodes(path)
    add_systems(servers)
    return servers


def read_nodes(path: Path) -> dict[str, Server]:
    """Return the servers of a file by name; raises TopologyError with the file, the entry, the value and the limit."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TopologyError(f"node file {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TopologyError(f"node file {path} has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")
    try:
        return nodes_of(data.decode())
    except UnicodeDecodeError as error:
        raise TopologyError(f"node file {path}: byte {error.start} is not UTF-8") from error
    except TopologyError as error:
        raise TopologyError(f"node file {path}: {error}") from error


def nodes_of(text: str) -> dict[str, Server]:
    """Return the servers that the text of a file describes; raises TopologyError."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise TopologyError(f"not TOML: {error}") from error
    file = _checked(raw, _File, "")
    if not file.servers:
        raise TopologyError("it has no [servers.NAME]; the least is one")
    processors, smartnics = dict(PROCESSORS), dict(SMARTNICS)
    for name, entry in file.processors.items():
        where = _new(name, "processors", PROCESSORS)
        cpu = _checked(entry, _Processor, where)
        processors[name] = _made(where, Processor, name, cpu.cores, cpu.clock_ghz, cpu.memory_gb, cpu.family,
                                 cpu.work_per_clock, cpu.busy_watts)
    for name, entry in file.smartnics.items():
        where = _new(name, "smartnics", SMARTNICS)
        nic = _checked(entry, _SmartNic, where)
        smartnics[name] = SmartNic(name, _named(nic.processor, processors, where, "processor"), nic.port_gbps,
                                   nic.pcie_gbps)
    return {name: _server(name, entry, processors, smartnics) for name, entry in file.servers.items()}


def _server(name: str, entry: object, processors: Mapping[str, Processor], smartnics: Mapping[str, SmartNic]) -> Server:
    where = _new(name, "servers", {})
    if SERVER_NAME.fullmatch(name) is None:
        raise TopologyError(f"{where}: a server's name is 1 to 24 of a-z, 0-9, - and _, and begins with a letter")
    if name in _PAPER:
        raise TopologyError(f"{where}: the paper's system of that name stands; taken are {', '.join(sorted(_PAPER))}")
    read = _checked(entry, _Server, where)
    if read.peak_watts < read.idle_watts:
        raise TopologyError(f"{where}: peak_watts is {read.peak_watts:g}; the least is idle_watts, {read.idle_watts:g}")
    return _made(where, Server, name, _named(read.host, processors, where, "host"),
                 tuple(_named(each, smartnics, where, "smartnics") for each in read.smartnics),
                 tuple(PlainNic("plain", gbps) for gbps in read.plain_nics_gbps),
                 read.idle_watts, read.peak_watts, read.cost_usd)


_PAPER = frozenset(SYSTEMS)  # before any file has been read
_Checked = TypeVar("_Checked")


def _checked(raw: object, kind: type[_Checked], where: str) -> _Checked:
    """Return `raw` as a `kind`; raises TopologyError with the entry, the field, its value and what it may be."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$")
        value, steps = raw, re.findall(r"\w+", path)
        for step in steps:
            value = value[int(step)] if isinstance(value, list) else value[step]  # type: ignore[index]
        field = ".".join([*([where] if where else []), *steps])
        shown = f"{field} is {value!r}: " if steps else f"{where}: " if where else ""
        raise TopologyError(f"{shown}{said}") from error


def _made(where: str, noun: type[_Checked], *arguments: object) -> _Checked:
    try:
        return noun(*arguments)
    except TopologyError as error:
        raise TopologyError(f"{where}: {error}") from error


def _new(name: str, section: str, taken: Mapping[str, object]) -> str:
    where = f"{section}.{name}"
    if name in taken:
        raise TopologyError(f"{where}: the catalogue has that name; taken are {', '.join(taken)}")
    return where


_Found = TypeVar("_Found")


def _named(name: str, known: Mapping[str, _Found], where: str, field: str) -> _Found:
    if name not in known:
        raise TopologyError(f"{where}.{field} is {name!r}; known here: {', '.join(known)}")
    return known[name]
