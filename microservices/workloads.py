"""The workload of each application, of each microservice alone, and of a user's own, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from microservices.assumptions import DEFAULTS, Assumptions
from microservices.errors import ServiceError
from microservices.natv4 import benchmark_mappings
from microservices.nfv_workload import NfvWorkload
from microservices.record_workload import RecordWorkload
from microservices.service import class_named
from microservices.workload import Workload

_NFV: Mapping[str, Callable[[], dict[str, Any]]] = {
    "nfv-fin": dict,
    "nfv-din": lambda: {"encrypted": False, "mappings": benchmark_mappings()},
    "nfv-ifid": lambda: {"inspected": False, "mappings": benchmark_mappings()},
    "ddos": lambda: {"encrypted": False, "inspected": False},
    "flow_monitor": lambda: {"encrypted": False, "inspected": False},
    "ipsec": lambda: {"inspected": False},
    "natv4": lambda: {"encrypted": False, "inspected": False, "mappings": benchmark_mappings()},
    "nids": lambda: {"encrypted": False},
}


def workload_named(application: str, seed: int = 1, size_bytes: int = 512, **options: Any) -> Workload:
    """Return the workload of an application that `application_named` knows, with options of its class.

    A user's own is named by its class, "FILE.py:CLASS", and made with the same arguments. Raises ServiceError if there
    is none or if it does not know an option.
    """
    try:
        if application in _NFV:
            return NfvWorkload(seed, size_bytes, **{**_NFV[application](), **options})
        if ":" in application:
            own: Workload = class_named(application, Workload)(seed, size_bytes, **options)
            return own
        return RecordWorkload(application, seed, size_bytes, **options)
    except TypeError as error:
        raise ServiceError(f"workload of {application!r} with options {sorted(options)}: {error}") from error


_LAST_STAGES = {"rta-ptc": "top_ranker", "rta-sf": "bayes", "rta-shm": "bm25"}


def workload_options(application: str, assumptions: Assumptions) -> dict[str, Any]:
    """Return the options of an application's workload that differ from the default under `assumptions`."""
    found: dict[str, Any] = {}
    if assumptions.zipf != DEFAULTS.zipf:
        found["zipf"] = assumptions.zipf
    if assumptions.keys != DEFAULTS.keys:
        found["flows" if application in _NFV else "keys"] = int(assumptions.keys)
    if application in _NFV and assumptions.malicious_share != DEFAULTS.malicious_share:
        found["malicious_share"] = assumptions.malicious_share
    if application in _LAST_STAGES and assumptions.last_stage_share < 1:
        found["perhaps"] = [_LAST_STAGES[application]]
    return found
