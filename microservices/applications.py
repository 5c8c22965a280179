"""The eight applications of Table 3, by name, and every microservice as an application of its own.

The paper gives each application's microservices and its number of nodes N, and spells out IOT-TS: 6 API, 12 SQL, 12
EMA, 12 Spike, 12 Recommend, each with one backup, which makes 2 * 54 = 108. The same rule yields all eight N, and is
ours for the other seven: every stage has 12 shards and one backup of each, and where N asks for it (60, 84, 108) the
entry has 6. At another `shards` an entry that is halved here has half of it, rounded up.

What sends to what is ours throughout: the paper draws IOT-TS (Figure 1) but does not say which shard sends to which,
and of all eight gives only the average and the maximum fan-out, 6 and 12 (section 4). A channel can be aligned (shard i
to shard i) wherever the next stage works by the same key and has as many shards; it must be keyed (all to all) where
the shards' numbers differ or translation has changed a packet's flow. Where either would do, we chose knowing that
average: the channels into Bayes and BM25 are keyed, which also spreads requests evenly over these two, the slowest.
So the average that these graphs have, 6.06, was aimed at and is no finding; the maximum follows from the 12 shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from microservices.application import Application, Channel, Stage, Trigger
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.errors import ApplicationError
from microservices.service import BUILT_IN


class PaperApplication(NamedTuple):
    """A row of Table 3: what the application is, its number of DAG nodes N, and its microservices."""

    description: str
    nodes: int
    services: tuple[str, ...]


TABLE_3 = {name: PaperApplication(description, nodes, tuple(services.split()))
           for name, description, nodes, services in (
    ("nfv-fin", "Flow monitoring", 72, "flow_monitor ipsec nids"),
    ("nfv-din", "Intrusion detection", 60, "ddos natv4 nids"),
    ("nfv-ifid", "IPsec gateway", 84, "natv4 flow_monitor ipsec ddos"),
    ("rta-ptc", "Twitter analytics", 60, "count top_ranker knn"),
    ("rta-sf", "Spam filter", 96, "spike count kvs bayes"),
    ("rta-shm", "Server health monitoring", 84, "count ema sql bm25"),
    ("iot-dh", "IoT data hub", 108, "api_gateway count knn kvs sql"),
    ("iot-ts", "Thermostat", 108, "api_gateway ema spike recommend sql"))}
PAPER_AVERAGE_FAN_OUT, PAPER_MAX_FAN_OUT = 6, 12  # over all eight, section 4
PAPER_SHARDS = 12
PAPER_BACKUPS = 1
FIRST_SINGLE_NUMBER = 100
# Channels that an assumption lets only a share of requests through (assumptions.py); IOT-TS has its trigger always.
_SHARED_CHANNELS = {"rta-ptc": ("last_stage_share", {("count", "ranker")}),
                    "rta-sf": ("last_stage_share", {("spike", "bayes")}),
                    "rta-shm": ("last_stage_share", {("sql", "bm25")}),
                    "iot-dh": ("logged_share", {("kvs", "count"), ("kvs", "sql")})}


def nfv_fin(shards: int = 1, backups: int = 0) -> Application:
    """Flow monitoring: count the flow, inspect in the clear, then encrypt.

    A packet that the NIDS matches is answered there, with an alert record; a clean one with its ESP packet. All three
    stages shard by the flow, so a flow stays in its lane.
    """
    return Application(
        "nfv-fin", 1,
        (Stage("monitor", "flow_monitor", shards, backups),
         Stage("nids", "nids", shards, backups),
         Stage("ipsec", "ipsec", shards, backups)),
        (Channel("monitor", "nids", aligned=True), Channel("nids", "ipsec", aligned=True)))


def nfv_din(shards: int = 1, backups: int = 0) -> Application:
    """Intrusion detection: watch destinations for floods, translate, inspect what goes inside.

    The reply is the translated packet, or an alert record.
    """
    return Application(
        "nfv-din", 2,
        (Stage("ddos", "ddos", half(shards), backups),
         Stage("nat", "natv4", shards, backups),
         Stage("nids", "nids", shards, backups)),
        (Channel("ddos", "nat"), Channel("nat", "nids")))


def nfv_ifid(shards: int = 1, backups: int = 0) -> Application:
    """IPsec gateway: watch for floods, count flows, translate, encrypt; the reply is an ESP packet."""
    return Application(
        "nfv-ifid", 3,
        (Stage("ddos", "ddos", half(shards), backups),
         Stage("monitor", "flow_monitor", shards, backups),
         Stage("nat", "natv4", shards, backups),
         Stage("ipsec", "ipsec", shards, backups)),
        (Channel("ddos", "monitor"), Channel("monitor", "nat", aligned=True), Channel("nat", "ipsec")))


def rta_ptc(shards: int = 1, backups: int = 0) -> Application:
    """Twitter analytics: classify a tweet, count its hashtag, rank the hashtags."""
    return Application(
        "rta-ptc", 4,
        (Stage("knn", "knn", half(shards), backups),
         Stage("count", "count", shards, backups),
         Stage("ranker", "top_ranker", shards, backups)),
        (Channel("knn", "count"), Channel("count", "ranker", aligned=True)))


def rta_sf(shards: int = 1, backups: int = 0) -> Application:
    """Spam filter: keep the sender's latest mail, count their mails, notice bursts, classify the text."""
    return Application(
        "rta-sf", 5,
        (Stage("kvs", "kvs", shards, backups),
         Stage("count", "count", shards, backups),
         Stage("spike", "spike", shards, backups),
         Stage("bayes", "bayes", shards, backups)),
        (Channel("kvs", "count", aligned=True), Channel("count", "spike", aligned=True), Channel("spike", "bayes")))


def rta_shm(shards: int = 1, backups: int = 0) -> Application:
    """Server health monitoring: count a server's reports, smooth its load, log it, find like reports by their words."""
    return Application(
        "rta-shm", 6,
        (Stage("count", "count", half(shards), backups),
         Stage("ema", "ema", shards, backups),
         Stage("sql", "sql", shards, backups),
         Stage("bm25", "bm25", shards, backups)),
        (Channel("count", "ema"), Channel("ema", "sql", aligned=True), Channel("sql", "bm25")))


def iot_dh(shards: int = 1, backups: int = 0) -> Application:
    """IoT data hub: authenticate, keep the device's latest state, then classify it; count and log it on the side."""
    return Application(
        "iot-dh", 7,
        (Stage("api", "api_gateway", half(shards), backups),
         Stage("kvs", "kvs", shards, backups),
         Stage("knn", "knn", shards, backups),
         Stage("count", "count", shards, backups),
         Stage("sql", "sql", shards, backups)),
        (Channel("api", "kvs"), Channel("kvs", "knn", aligned=True),
         Channel("kvs", "count", aligned=True, answers=False), Channel("kvs", "sql", aligned=True, answers=False)))


def iot_ts(shards: int = 1, backups: int = 0, analytics_share: float = DEFAULTS.analytics_share,
           seed: int = 1) -> Application:
    """Thermostat (Figure 1): authenticate, log the update; past a threshold recommend, average, and look for spikes.

    An update that sets off no analytics is answered by SQL, another by Recommend.
    """
    threshold = Trigger("analytics", analytics_share, seed)
    return Application(
        "iot-ts", 8,
        (Stage("api", "api_gateway", half(shards), backups),
         Stage("sql", "sql", shards, backups),
         Stage("ema", "ema", shards, backups),
         Stage("spike", "spike", shards, backups),
         # A thermostat's record holds its temperature first, then the set point and how comfortable it is.
         Stage("recommend", "recommend", shards, backups, {"first_value": 1})),
        (Channel("api", "sql"),
         Channel("sql", "ema", aligned=True, answers=False, trigger=threshold),
         Channel("sql", "spike", aligned=True, answers=False, trigger=threshold),
         Channel("sql", "recommend", aligned=True, trigger=threshold)))


APPLICATIONS: dict[str, Callable[[int, int], Application]] = {
    "nfv-fin": nfv_fin, "nfv-din": nfv_din, "nfv-ifid": nfv_ifid, "rta-ptc": rta_ptc, "rta-sf": rta_sf,
    "rta-shm": rta_shm, "iot-dh": iot_dh, "iot-ts": iot_ts}


def application_named(name: str, shards: int = PAPER_SHARDS, backups: int = PAPER_BACKUPS,
                      assumptions: Assumptions = DEFAULTS) -> Application:
    """Return one of Table 3's applications, of the paper's size by default, or a microservice alone by its name.

    `assumptions` say which share of requests goes where the paper leaves it open. Raises ApplicationError.
    """
    if name == "iot-ts":
        return iot_ts(shards, backups, assumptions.analytics_share)
    if name in _SHARED_CHANNELS:
        field, channels = _SHARED_CHANNELS[name]
        return _sharing(APPLICATIONS[name](shards, backups), channels, field, getattr(assumptions, field))
    if name in APPLICATIONS:
        return APPLICATIONS[name](shards, backups)
    if name in BUILT_IN:
        number = FIRST_SINGLE_NUMBER + sorted(BUILT_IN).index(name)
        return Application(name, number, (Stage(name, name, shards, backups),), ())
    raise ApplicationError(f"unknown application {name!r}; known: {', '.join((*APPLICATIONS, *sorted(BUILT_IN)))}")


def _sharing(application: Application, channels: set[tuple[str, str]], name: str, share: float) -> Application:
    """Return `application` with only a share of requests through `channels`, the same through each of them."""
    if share == 1.0:
        return application
    trigger = Trigger(name, share, seed=1)
    return replace(application, channels=tuple(
        replace(c, trigger=trigger) if (c.source, c.target) in channels else c for c in application.channels))


def half(shards: int) -> int:
    return -(-shards // 2)
