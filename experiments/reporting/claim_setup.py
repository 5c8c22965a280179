"""The paper's claims that are ways to build or to measure: what stands in our code for them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controller.overload import OverloadOptions
from experiments.placement_study import fat_tree_of
from experiments.reporting.claims import Finding
from experiments.views.application_views import content_of
from microservices.applications import (
    APPLICATIONS,
    PAPER_AVERAGE_FAN_OUT,
    PAPER_MAX_FAN_OUT,
    PAPER_SHARDS,
    application_named,
)
from microservices.assumptions import MEASURED_BYTES
from microservices.profiles import TABLE_1
from topologies.catalog import SYSTEMS

CODE = "code"  # stands where a finding names its experiment
SERVERS = 1000


def setup_findings() -> Iterator[Finding]:
    """Yield a finding for each of them."""
    nic = SYSTEMS["liquidio10g"].smartnics[0]
    yield _said("setup", f"{len(TABLE_1)} microservices; {MEASURED_BYTES} B requests; {nic.port_gbps:g} Gb/s on each "
                         "side; peak at the knee of a closed loop; unused cores asleep")
    yield _said("smartnic-cores", f"{nic.processor.cores} cores, all drawing power whenever the SmartNIC is in use")
    yield _said("overload-threshold", f"{100 * OverloadOptions().excess:g} %")
    over_all = content_of([application_named(name) for name in APPLICATIONS])["fan_out"]
    for what, paper in (("average", PAPER_AVERAGE_FAN_OUT), ("maximum", PAPER_MAX_FAN_OUT)):
        yield Finding(key="fan-out", what=what, experiment=CODE, paper=float(paper), ours=float(over_all[what]),
                      kind="set-up")
    graph = application_named("iot-ts")
    nodes = sum(stage.shards * (1 + stage.backups) for stage in graph.stages)
    yield _said("shards", ", ".join(f"{stage.shards} {stage.service}" for stage in graph.stages)
                + f", 1 backup each: {nodes} nodes; other applications: {PAPER_SHARDS} shards a stage")
    cluster = fat_tree_of(SERVERS)
    yield _said("racks", f"{max(len(rack.servers) for rack in cluster.racks)} servers per rack")


def _said(key: str, said: str) -> Finding:
    return Finding(key=key, experiment=CODE, said=said, kind="set-up")
