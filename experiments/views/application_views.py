"""What `./e3 apps` says: each application's size beside the paper's, as JSON and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from microservices.application import Application, Channel
from microservices.applications import PAPER_AVERAGE_FAN_OUT, PAPER_MAX_FAN_OUT, TABLE_3
from microservices.service import service_class

LIST_COLUMNS = ("application", "what it is", "N", "paper", "microservices", "paper", "stages (shards)", "fan-out",
                "max")
STAGE_COLUMNS = ("stage", "microservice", "shards", "backups", "memory MB", "state", "runs on", "options")
CHANNEL_COLUMNS = ("from", "to", "kind", "ways", "the reply's way", "share let through")


def content_of(applications: Sequence[Application]) -> dict[str, Any]:
    """Return sizes and fan-outs of each application beside the paper's (None for one that is not in Table 3).

    The fan-out of an instance is how many instances it may send to; instances that send to none do not count, and nor
    do backups. `fan_out` is over all of `applications` together, as section 4 gives it.
    """
    counts = [n for application in applications for n in application.fan_outs().values()]
    named = {a.name for a in applications}
    return {"applications": {a.name: _application(a) for a in applications},
            "fan_out": _fan_out(counts),
            "paper_fan_out": {"average": PAPER_AVERAGE_FAN_OUT, "maximum": PAPER_MAX_FAN_OUT}
            if named == TABLE_3.keys() else None}


def detail_of(application: Application) -> dict[str, Any]:
    """Return the same of one application, with every instance and every edge between primaries."""
    return {**_application(application),
            "instances": [{"number": i.number, "name": i.name, "stage": i.stage, "service": i.service,
                           "shard": i.shard, "backup": i.backup} for i in application.instances],
            "edges": application.edges}


def list_rows(content: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield LIST_COLUMNS of each application, and last what holds for all."""
    for name, one in content["applications"].items():
        paper = one["paper"] or {"nodes": "", "microservices": ""}
        yield (name, one["description"], one["nodes"], paper["nodes"], len(one["microservices"]),
               len(paper["microservices"]) or "", ", ".join(f"{s['name']} {s['shards']}" for s in one["stages"]),
               _number(one["fan_out"]["average"]), one["fan_out"]["maximum"])
    over_all = content["fan_out"]
    yield ("all", "", sum(one["nodes"] for one in content["applications"].values()), "", "", "", "",
           _number(over_all["average"]), over_all["maximum"])
    if content["paper_fan_out"] is not None:
        said = content["paper_fan_out"]
        yield "paper, section 4", "", "", sum(row.nodes for row in TABLE_3.values()), "", "", "", said["average"], \
            said["maximum"]


def stage_rows(content: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for s in content["stages"]:
        yield (s["name"], s["service"], s["shards"], s["backups"], f"{s['memory_mb']:g}",
               "yes" if s["stateful"] else "no", "host only" if s["host_only"] else "SmartNIC or host",
               ", ".join(f"{k}={v!r}" for k, v in s["options"].items()))


def channel_rows(content: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for c in content["channels"]:
        trigger = c["trigger"]
        yield (c["source"], c["target"], c["kind"], c["edges"], "yes" if c["answers"] else "no, a side branch",
               "all" if trigger is None else f"{trigger['share']:.0%} ({trigger['name']}, seed {trigger['seed']})")


def _application(application: Application) -> dict[str, Any]:
    row = TABLE_3.get(application.name)
    services = sorted({stage.service for stage in application.stages})
    return {
        "name": application.name, "number": application.number,
        "description": row.description if row else "",
        "nodes": len(application.instances),
        "primaries": sum(not i.backup for i in application.instances),
        "backups": sum(bool(i.backup) for i in application.instances),
        "microservices": services,
        "paper": {"nodes": row.nodes, "microservices": sorted(row.services)} if row else None,
        "as_in_table_3": (len(application.instances), services) == (row.nodes, sorted(row.services)) if row else None,
        "fan_out": _fan_out(list(application.fan_outs().values())),
        "sources": application.sources, "sinks": application.sinks,
        "stages": [_stage(application, name) for name in application.order()],
        "channels": [_channel(application, c) for c in application.channels]}


def _stage(application: Application, name: str) -> dict[str, Any]:
    stage = application.stage(name)
    service = service_class(stage.service)
    return {"name": name, "service": stage.service, "shards": stage.shards, "backups": stage.backups,
            "memory_mb": service.memory_mb, "stateful": service.stateful, "host_only": service.host_only,
            "answering": name in application.answering, "options": dict(stage.options)}


def _channel(application: Application, c: Channel) -> dict[str, Any]:
    shards, others = application.stage(c.source).shards, application.stage(c.target).shards
    trigger = None if c.trigger is None else {"name": c.trigger.name, "share": c.trigger.share, "seed": c.trigger.seed}
    return {"source": c.source, "target": c.target, "kind": "aligned" if c.aligned else "keyed",
            "edges": shards if c.aligned else shards * others, "answers": c.answers, "trigger": trigger}


def _fan_out(counts: Sequence[int]) -> dict[str, float | int]:
    return {"senders": len(counts), "edges": sum(counts), "average": sum(counts) / len(counts) if counts else 0.0,
            "maximum": max(counts, default=0)}


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
