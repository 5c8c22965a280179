"""The applications of Table 3, by name."""

from __future__ import annotations

from microservices.application import Application, Channel, Stage


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
