"""Which workload goes with which application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.errors import ExperimentError
from microservices.nfv_workload import NfvWorkload
from microservices.workload import Workload

WORKLOADS = {"nfv-fin": NfvWorkload}


def new_workload(application: str, seed: int, size_bytes: int, options: Mapping[str, Any]) -> Workload:
    """Make the workload of `application`; raises ExperimentError if there is none, ServiceError for bad options."""
    if application not in WORKLOADS:
        raise ExperimentError(f"no workload for application {application!r}; there are {', '.join(WORKLOADS)}")
    return WORKLOADS[application](seed=seed, size_bytes=size_bytes, **options)
