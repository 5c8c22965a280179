"""The figures' measurements on real packets, each at one small point; whole figures take minutes (`e3 run`)."""

import pytest

from experiments import fig3, fig8
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.energy import power_between
from experiments.measurement.measuring import Plan
from experiments.measurement.single_node import SingleNode
from experiments.round_trips import MECHANISMS
from experiments.runs.run_options import RunOptions
from microservices.measured import Column

PATIENT = RunOptions(quick=True, retry=5)


def test_a_round_trip_over_pcie_comes_back_as_it_was_put_in() -> None:
    said: list[str] = []
    with Testbed.start(TestbedOptions(fig3.CLUSTER, label="fig3")) as bed:
        trip = fig3.round_trip(bed, MECHANISMS["SmartNIC-host"], Plan(15, 2), PATIENT, said.append)
    assert not trip.refused and not trip.bad, (trip, said)
    assert trip.rtt_s == pytest.approx(trip.modelled_s, rel=0.1)


def test_a_peak_is_found_for_a_size_and_a_number_of_cores_of_one_s_own() -> None:
    with SingleNode(PATIENT, Plan(800, 200)) as room:
        cell = room.peak("spike", Column.BYPASS, 1024, cores=4)
    assert cell.cores == 4 and cell.payload_bytes == 1024 and not cell.bad
    # Of Table 1's cost at 512 bytes 0.4 are fixed: 12 / 104.3K x (0.4 + 0.6 x 2), on four cores.
    assert cell.holds and cell.rps == pytest.approx(4 / (12 / 104_300 * 1.6), rel=0.05), cell


def test_an_application_deployed_and_idle_draws_what_its_smartnics_never_save() -> None:
    with Testbed.start(TestbedOptions(fig8.CLUSTER, label="fig8")) as bed:
        room = fig8.Room(bed, PATIENT, Plan(300, 50), lambda _: None)
        room.pace("nfv-fin", 400.0)
        before = bed.counters()
        power = power_between(before, bed.counters(), bed.inventory, Column.LINUX)
    assert power.idle_watts == 3 * 98 and power.wall_watts == pytest.approx(3 * (98 + 18.8))
