"""Clients at work on what is replicated, and what is to be said of their replies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.clients.client import ClientConfig, ClientResult
from experiments.clients.shared_store import SHARED
from experiments.clients.store_checker import CHECKER, READ_BACK, StoreReadBack
from experiments.emulation.running import RunningClient
from experiments.emulation.testbed import Testbed
from experiments.failures import judging
from microservices.application import Application
from microservices.applications import application_named, iot_ts
from microservices.service import service_class
from nodes.deployment import Deployment, deploy
from topologies.inventory import Inventory

CLIENTS = ("c1", "c2")
RESULT_LIMIT_S = 60.0
VALUE_BYTES = 64
READINGS_RPS = 200.0  # of each client of IOT-TS
DRAIN_REAL_S = 10.0


def store_on(inventory: Inventory) -> Deployment:
    """Return the replicated store where it is at first."""
    return deploy(application_named("kvs", 1, 1), {0: "s1n1"}, inventory, replicate=True)


def thermostats_on(inventory: Inventory) -> Deployment:
    """Return IOT-TS where it is at first: all replicated but for SQL, which shows what becomes of what is not."""
    whole = iot_ts(1, 1)
    stages = tuple(replace(s, backups=0) if service_class(s.service).host_only else s for s in whole.stages)
    application = Application(whole.name, whole.number, stages, whole.channels)
    nodes = dict(enumerate(("s1n1", "s2h", "s2n1", "s3n1", "s3h")))
    return deploy(application, nodes, inventory, replicate=True)


class Load:
    """Clients at work on a deployment, from `start` to `stop`, and what each was told by then, by client node."""

    def __init__(self, bed: Testbed, deployment: Deployment) -> None:
        self._bed = bed
        self._deployment = deployment
        self._at_work: list[tuple[str, ClientConfig, RunningClient]] = []
        self.results: list[tuple[str, ClientConfig, ClientResult]] = []

    def start(self) -> None:
        """Put the clients to work."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the clients; raises ExperimentError for one that gives no result."""
        for _, _, client in self._at_work:
            client.stop()
        self.results = [(node, config, client.result(RESULT_LIMIT_S)) for node, config, client in self._at_work]
        self._at_work.clear()

    def complaints(self, lone_lost: bool) -> list[str]:
        """Return what is wrong; `lone_lost` if what has no replica was lost meanwhile, with the requests it had."""
        raise NotImplementedError

    def _put(self, node: str, workload: str, **more: Any) -> None:
        config = self._config(node, workload, more)
        self._at_work.append((node, config, self._bed.start_client(node, config)))

    def _config(self, node: str, workload: str, more: dict[str, Any]) -> ClientConfig:
        number = self._bed.next_client_number()
        given: dict[str, Any] = {"requests": 0, "flows": 1, "window": 4, "timeout_s": 1e6, "seed": number,
                                 "drain_real_s": DRAIN_REAL_S, **more}
        return ClientConfig(self._bed.inventory.node(node).ip, number, self._deployment, workload, **given)


class StoreLoad(Load):
    """Two writers of keys of their own, and two that share theirs."""

    def start(self) -> None:
        space = self._bed.next_client_number()
        for node in CLIENTS:
            writer, sharing = self._bed.next_client_number(), self._bed.next_client_number()
            self._put(node, CHECKER, payload_bytes=VALUE_BYTES, seed=writer, options={"writer": writer})
            self._put(node, SHARED, flows=2, window=1, payload_bytes=VALUE_BYTES, history=True, seed=sharing,
                      options={"writer": sharing, "space": space})

    def complaints(self, lone_lost: bool) -> list[str]:
        del lone_lost  # there is nothing without a replica
        wrote = [(config, result) for _, config, result in self.results if config.workload == CHECKER]
        read = [self._read_back(config, result.sent) for config, result in wrote]
        return (judging.of_writers([result for _, result in wrote], read)
                + judging.of_shared(result for _, config, result in self.results if config.history))

    def _read_back(self, wrote: ClientConfig, sent: int) -> ClientResult:
        writer = wrote.options["writer"]
        keys = len(StoreReadBack(wrote.seed, VALUE_BYTES, writer, sent).right)
        config = self._config("c1", READ_BACK, {"requests": keys, "payload_bytes": VALUE_BYTES, "seed": wrote.seed,
                                                "options": {"writer": writer, "sent": sent}})
        return self._bed.start_client("c1", config).result(RESULT_LIMIT_S)


class ThermostatLoad(Load):
    """Two clients that report readings, whatever comes back."""

    def start(self) -> None:
        for node in CLIENTS:
            self._put(node, self._deployment.name, flows=2, rate_rps=READINGS_RPS)

    def complaints(self, lone_lost: bool) -> list[str]:
        excused = judging.EXCUSED if lone_lost else ()
        return [said for _, _, result in self.results for said in judging.of_client(result, excused)]
