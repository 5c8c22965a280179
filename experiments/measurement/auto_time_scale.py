"""Chooses a run's time scale: the simulation says what load is to be expected, a pilot what this machine carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed
from experiments.measurement.measuring import Measurement, Plan
from experiments.measurement.simulated_bed import SimulatedBed
from experiments.measurement.time_scale import capacity_of, time_scale_for
from nodes.deployment import Deployment

FORECAST = Plan(requests=1500, warm_requests=300, most_real_s=20.0)


def forecast(bed: Testbed, configs: Mapping[str, ClientConfig], pacing: Pacing,
             deployments: tuple[Deployment, ...]) -> Measurement:
    """Return what `configs` would measure at the speed of `pacing`, in virtual time."""
    simulated = SimulatedBed(replace(bed.options, pacing=replace(pacing, time_scale=1.0), deployments=deployments))
    return simulated.measure(configs, FORECAST)


def auto_time_scale(bed: Testbed, configs: Mapping[str, ClientConfig], pacing: Pacing) -> float:
    """Return the smallest time scale at which `configs` should hold on this machine, at the speed of `pacing`.

    The testbed is left unpaced. Raises ExperimentError where no time scale would do.
    """
    expected = forecast(bed, configs, pacing, bed.deployments)
    return time_scale_for(expected.throughput_rps, expected.latencies.mean_s, capacity_of(bed, configs))
