"""A window of a run: what falls into it, what the verdict is told, how busy ports were, and what must come to wait."""

from __future__ import annotations

import time
import types
from pathlib import Path

import msgspec
import numpy as np
import pytest

from experiments.clients.latencies import summary_of
from experiments.clients.load import ClientResult
from experiments.errors import ExperimentError
from experiments.measurement import measuring
from experiments.measurement.fidelity import USUAL_LIMITS, judge
from experiments.measurement.machine_load import MachineLoad
from experiments.measurement.measuring import Begun, Measurement, observed
from experiments.measurement.port_use import Counts, PortSnapshot, parse_ports, utilisation
from microservices.applications import application_named
from nodes.deployment import Deployment, deploy
from nodes.errors import WorldError
from nodes.lateness import Lateness, LatenessSummary
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x2"))
IDLE = MachineLoad(0.5)


def counters(now_s: float, late_s: tuple[float, ...] = (), **more: int) -> dict[str, int]:
    late = Lateness()
    for one in late_s:
        late.record(one)
    return {"now_ns": round(now_s * 1e9), **{name.replace("_SPACE_", " "): n for name, n in more.items()},
            **late.counters("late")}


def result(answered_s: tuple[float, ...], latencies_s: tuple[float, ...], **changes) -> ClientResult:
    made = ClientResult(len(answered_s), len(answered_s), 0, 0, 0, 0, 0, 0, 10.0, 0.0, summary_of(latencies_s), [],
                        answered_s=np.array(answered_s).tobytes(), latencies_s=np.array(latencies_s).tobytes())
    return msgspec.structs.replace(made, **changes)


def measured(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]],
             results: dict[str, ClientResult], dropped: int = 0) -> Measurement:
    bed = types.SimpleNamespace(pacing=types.SimpleNamespace(time_scale=40.0))
    return measuring._measurement(bed, results, Begun(before, 0), before, after, IDLE, {}, dropped, USUAL_LIMITS)


def test_throughput_and_latencies_are_of_the_replies_within_the_window_of_every_client() -> None:
    found = measured({"s1n1": counters(1.0), "s1h": counters(1.5)}, {"s1n1": counters(3.0), "s1h": counters(3.5)}, {
        "c1": result((1.4, 1.5, 2.0, 3.4, 3.5), (9.0, 0.1, 0.2, 0.3, 9.0)), "c2": result((0.1, 2.5), (9.0, 0.4))})
    assert (found.window_s, found.replies, found.throughput_rps) == (2.0, 4, 2.0)
    assert found.latencies.mean_s == pytest.approx(0.25) and found.latencies.max_s == pytest.approx(0.4)
    assert found.time_scale == 40.0


def test_busy_cores_are_core_time_over_the_time_between_a_node_s_own_reports() -> None:
    found = measured({"s1n1": counters(1.0, busy_ns_SPACE_kvs=10**9)},
                     {"s1n1": counters(3.0, busy_ns_SPACE_kvs=4 * 10**9, busy_ns_SPACE_sql=10**9)},
                     {"c1": result((2.0,), (0.1,))})
    assert found.node_window_s("s1n1") == 2.0 and found.busy_cores("s1n1") == 2.0
    assert found.delta("s1n1", "busy_ns sql") == 10**9 and found.delta("s1n1", "nothing") == 0


def test_what_belongs_in_a_manifest_has_differences_and_no_single_replies() -> None:
    found = measured({"s1n1": counters(1.0, handled=5)}, {"s1n1": counters(3.0, late_s=(1e-3,), handled=9)},
                     {"c1": result((2.0,), (0.1,))})
    content = found.content()
    assert content["nodes"]["s1n1"] == {"now_ns": 2 * 10**9, "handled": 4}
    assert "answered_s" not in content["clients"]["c1"] and content["replies"] == 1
    msgspec.json.encode(content)


def test_bad_ends_of_requests_are_counted_by_how_over_all_clients() -> None:
    found = measured({"s1n1": counters(1.0)}, {"s1n1": counters(3.0)}, {
        "c1": result((2.0,), (0.1,), wrong=1, lost=2), "c2": result((2.0,), (0.1,), lost=1, late=4)})
    assert found.bad() == {"wrong": 1, "lost": 3, "late": 4}
    assert measured({"s1n1": counters(1.0)}, {"s1n1": counters(3.0)}, {"c1": result((2.0,), (0.1,))}).bad() == {}


# -- what the verdict is told ------------------------------------------------------------------------------------------

def test_the_verdict_hears_of_the_window_only() -> None:
    before = counters(1.0, late_s=(5.0,) * 100, overruns=50, overrun_ns=900, to_network=1, dropped_socket=7)
    after = {**counters(3.0, overruns=52, overrun_ns=1000, to_network=9, dropped_socket=8, dropped_unsent=3)}
    lateness = Lateness()
    for late_s in (5.0,) * 100 + (1e-6,) * 10:
        lateness.record(late_s)
    after |= lateness.counters("late")
    told = observed({"s1n1": before}, {"s1n1": after}, {}, summary_of((0.1,)), IDLE, 0).sources["s1n1"]
    assert (told["overruns"], told["overrun_ns"], told["finishes"]) == (2, 100, 10)
    assert told["dropped_socket"] == 1 + 3  # frames lost on their way in, and those that could not be sent
    assert 1000 <= told["late_p50_ns"] <= told["late_max_ns"] <= 1190


def test_frames_that_were_dropped_before_the_window_count_from_the_beginning_of_the_load() -> None:
    begun, before, after = ({"s1n1": counters(now_s, to_network=n, dropped_socket=n, dropped_unsent=2 * n)}
                            for now_s, n in ((0.5, 1), (1.0, 3), (3.0, 4)))
    told = observed(before, after, {}, summary_of((0.1,)), IDLE, 0, begun)
    assert told.sources["s1n1"]["dropped_socket"] == 3 + 6


def test_a_node_that_has_no_part_in_the_load_is_not_judged() -> None:
    before = {name: counters(1.0, to_network=5, to_host=5) for name in ("s1n1", "s2n1", "s1h", "s2h")}
    after = {"s1n1": counters(3.0, to_network=6, to_host=5), "s2n1": counters(3.0, to_network=5, to_host=5),
             "s1h": counters(3.0, handled_SPACE_kvs=1), "s2h": counters(3.0)}
    # Passing on is work, too: s1n1 handled nothing itself.
    assert set(observed(before, after, {}, summary_of((0.1,)), IDLE, 0).sources) == {"s1n1", "s1h"}


def test_clients_and_the_switch_are_judged_beside_the_nodes() -> None:
    behind = LatenessSummary(100, 1000, 2_000_000, 3_000_000)
    results = {"c1": result((2.0,), (0.1,), behind=behind, dropped_socket=2)}
    told = observed({}, {}, results, summary_of((0.001,) * 7), IDLE, 3)
    assert (told.mean_latency_s, told.requests) == (0.001, 7)
    verdict = judge(told)
    assert [reason.split(":")[0] for reason in verdict.reasons] == [
        "lateness p99 at c1", "frames dropped outside the modelled queues at the switches' sockets, c1's sockets"]


def test_a_window_without_a_reply_does_not_hold() -> None:
    found = measured({"s1n1": counters(1.0)}, {"s1n1": counters(3.0)}, {"c1": result((), ())})
    assert not found.verdict.holds and "no latency was measured" in found.verdict.reasons[0]


# -- waiting -----------------------------------------------------------------------------------------------------------

def deployment(name: str) -> Deployment:
    application = application_named(name, shards=2, backups=0)
    return deploy(application, {i.number: "s1n1" for i in application.instances}, RACK)


def test_requests_are_counted_where_they_enter() -> None:
    nfv = deployment("nfv-fin")
    assert measuring._entry_counters([nfv]) == {"handled nfv-fin/monitor-1", "handled nfv-fin/monitor-2"}
    taken = {"s1n1": {"handled nfv-fin/monitor-1": 3, "handled nfv-fin/nids-1": 90}, "s2n1": {},
             "s1h": {"handled nfv-fin/monitor-2": 4}}
    assert measuring._handled(taken, measuring._entry_counters([nfv])) == 7


class Bed:
    """A testbed on which `steps` requests are handled between two looks."""

    def __init__(self, *steps: int, silent: tuple[str, ...] = ()) -> None:
        self.agents = {"s1n1": 1, "s1h": 2}
        self._steps = iter(steps)
        self.handled = 0
        self._silent = silent

    def counters(self, timeout_s: float = 2.0) -> dict[str, dict[str, int]]:
        self.handled += next(self._steps, 0)
        return {name: {"handled a/b-1": self.handled if name == "s1n1" else 0} for name in self.agents
                if name not in self._silent}

    def throttled_ns(self, node: str) -> int:
        return 5 if node == "s1h" else 0


def test_a_wait_ends_when_enough_is_through_or_when_time_is_up_with_something_through(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LOOK_REAL_S", 0.001)
    plenty, few = Bed(10, 10, 10, 10, 10), Bed(10)
    measuring._wait(plenty, {"handled a/b-1"}, 0, 25, 60.0)
    assert plenty.handled == 30
    began = time.monotonic()
    measuring._wait(few, {"handled a/b-1"}, 0, 25, 0.05)
    assert few.handled == 10 and time.monotonic() - began >= 0.05


def test_a_run_in_which_nothing_comes_through_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LOOK_REAL_S", 0.001)
    with pytest.raises(ExperimentError, match=r"no request was handled within 0\.05 s"):
        measuring._wait(Bed(), {"handled a/b-1"}, 0, 25, 0.05)


def test_a_snapshot_has_every_node_with_its_throttling_or_names_those_that_are_silent() -> None:
    assert {node: c["throttled_ns"] for node, c in measuring.snapshot(Bed()).items()} == {"s1n1": 0, "s1h": 5}
    with pytest.raises(ExperimentError, match="no report from s1h"):
        measuring.snapshot(Bed(silent=("s1h",)))


def test_drops_of_the_switches_sockets_are_read_from_ss_and_from_what_the_switch_says(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("Netid Recv-Q Send-Q Local Address:Port Peer Address:Port\n"
            "p_raw 0      0      *:tor1-s1n1         *                \n"
            "\t skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d12)\n"
            "p_raw 0      0      *:tor1-c1           *                \n"
            "\t skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d30)\n")
    monkeypatch.setattr(measuring.programs, "run", lambda argv: said if argv[1:] == ["-0", "-n", "-m"] else "")
    log = tmp_path / "ovs-vswitchd.log"
    log.write_text("netdev_linux|WARN|error sending Ethernet packet on tor1-c1: Resource temporarily unavailable\n")
    bed = types.SimpleNamespace(world=types.SimpleNamespace(switch_log=log))
    assert measuring.switch_drops(bed) == 42 + 1
    monkeypatch.undo()
    monkeypatch.setattr(measuring.programs, "find_binary", lambda name: "/bin/false")
    with pytest.raises(WorldError, match="false -0 -n -m: exit status 1"):
        measuring.switch_drops(bed)


# -- ports -------------------------------------------------------------------------------------------------------------

# As Open vSwitch 3.1 prints them: to a pipe by number, to a terminal by name.
NUMBERED = """OFPST_PORT reply (OF1.5) (xid=0x2): 4 ports
  port LOCAL: rx pkts=3, bytes=372, drop=0, errs=0, frame=0, over=0, crc=0
           tx pkts=0, bytes=0, drop=0, errs=0, coll=0
           duration=1.697s
  port  1: rx pkts=11, bytes=2654, drop=0, errs=0, frame=0, over=0, crc=0
           tx pkts=8, bytes=624, drop=0, errs=0, coll=0
           duration=1.698s
  port 12: rx pkts=4, bytes=210, drop=0, errs=0, frame=0, over=0, crc=0
           tx pkts=5, bytes=2114, drop=0, errs=0, coll=0
           duration=1.698s
"""
NAMES = {1: "tor1-s1n1", 12: "tor1-c1"}
COUNTED = {"tor1-s1n1": Counts(11, 2654, 8, 624), "tor1-c1": Counts(4, 210, 5, 2114)}


def named(text: str) -> str:
    return text.replace("port  1:", 'port "tor1-s1n1":').replace("port 12:", 'port "tor1-c1":')


def test_ports_are_read_whether_open_vswitch_gives_numbers_or_names() -> None:
    assert parse_ports(NUMBERED, NAMES) == parse_ports(named(NUMBERED), NAMES) == COUNTED


def test_ports_that_are_not_of_the_inventory_are_left_out() -> None:
    assert parse_ports(NUMBERED, {1: "tor1-s1n1"}) == {"tor1-s1n1": COUNTED["tor1-s1n1"]}


def test_a_port_whose_counters_are_not_known_does_not_take_its_neighbour_s() -> None:
    text = NUMBERED.replace("tx pkts=8, bytes=624, drop=0", "tx pkts=?, bytes=?, drop=?")
    assert parse_ports(text, NAMES) == {"tor1-c1": COUNTED["tor1-c1"]}


def test_a_port_s_use_counts_what_ethernet_adds_to_each_frame() -> None:
    frames, size = 1000, 554  # of which 1 ms at 10 Gb/s holds 1.25 MB
    before = PortSnapshot(5.0, {"a": Counts(10, 1000, 20, 2000)})
    after = PortSnapshot(5.001, {"a": Counts(10 + frames, 1000 + frames * size, 20, 2000)})
    use = utilisation(before, after, {"a": 10.0})["a"]
    assert use.from_node == pytest.approx(frames * (size + 24) / 1.25e6) and use.to_node == 0.0


def test_a_full_line_of_512_byte_payloads_is_a_use_of_one() -> None:
    wire = 512 + 42 + 24
    rate = 10e9 / 8 / wire
    after = PortSnapshot(1.0, {"a": Counts(0, 0, round(rate), round(rate) * (wire - 24))})
    use = utilisation(PortSnapshot(0.0, {}), after, {"a": 10.0})["a"]  # a port that the first snapshot lacks began at 0
    assert use.to_node == pytest.approx(1.0, rel=1e-6)
