import pytest

from controller import tor_status
from controller.errors import CounterError, ProgramError
from controller.fabric_repair import ends_of, repair
from controller.tor_counters import BucketCounter, drops, group_counters, rule_counters
from controller.tor_program import TorProgram, programs_of
from controller.tor_rules import rules_of
from controller.tor_status import REPAIRS_KEPT, RepairStatus, SwitchStatus, TorStatus, unsettled
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of


def tor() -> TorProgram:
    return programs_of(inventory_of(cluster_named("type2x2")))["tor1"]


def line(name: str, packets: int, size: int) -> str:
    rule = next(r for r in rules_of(tor()) if r.name == name)
    return (f" cookie=0x{rule.cookie:x}, duration=12.5s, table={rule.table}, n_packets={packets}, n_bytes={size}, "
            f"idle_age=3, priority={rule.priority} actions=drop\n")


def test_packets_are_counted_under_the_rules_names() -> None:
    text = "OFPST_FLOW reply (OF1.5) (xid=0x2):\n" + line("route to s1n1", 7, 700) + line("TTL 1, dropped", 3, 300)
    counters = rule_counters(text, tor())
    assert (counters["route to s1n1"].packets, counters["route to s1n1"].bytes) == (7, 700)
    assert drops(counters) == {"TTL 1, dropped": 3}
    assert len(counters) == len(rules_of(tor())) and counters["route to s1h"].packets == 0


def test_rules_of_others_are_strangers_and_add_up() -> None:
    text = (" cookie=0x0, duration=1s, table=0, n_packets=2, n_bytes=20, priority=5 actions=drop\n"
            " cookie=0x0, duration=1s, table=0, n_packets=3, n_bytes=30, priority=6 actions=drop\n"
            " cookie=0xab, duration=1s, table=2, n_packets=1, n_bytes=10, priority=6 actions=NORMAL\n")
    counters = rule_counters(text, tor())
    assert drops(counters) == {"stranger 0x0 in table 0": 5}
    assert counters["stranger 0xab in table 2"].packets == 1


@pytest.mark.parametrize("text", [" cookie=0x0, something else", " cookie=junk, table=0, n_packets=1, n_bytes=2"])
def test_text_that_is_no_flow_dump_is_refused(text: str) -> None:
    with pytest.raises(CounterError, match="not a line of dump-flows"):
        rule_counters(text, tor())


GROUP_STATS = (" group_id=1,duration=81.1s,ref_count=1,packet_count=10,byte_count=1000,"
               "bucket0:packet_count=1,byte_count=100,bucket1:packet_count=2,byte_count=200,"
               "bucket2:packet_count=3,byte_count=300,bucket3:packet_count=4,byte_count=400\n"
               " group_id=77,duration=8s,ref_count=0,packet_count=0,byte_count=0\n")


def test_a_groups_packets_are_counted_by_bucket_and_interface() -> None:
    assert group_counters(GROUP_STATS, tor()) == {"ports of s1h": (
        BucketCounter(1, "tor1-s1n1", 1, 100), BucketCounter(2, "tor1-s1n2", 2, 200),
        BucketCounter(3, "tor1-s1n3", 3, 300), BucketCounter(4, "tor1-s1n4", 4, 400))}


def test_buckets_that_are_not_the_programs_are_refused() -> None:
    with pytest.raises(CounterError, match=r"counts buckets \[0, 1, 2\]; the program has 4"):
        group_counters(GROUP_STATS.split(",bucket3")[0], tor())
    with pytest.raises(CounterError, match="not a line of dump-group-stats"):
        group_counters(" group_id=1,nothing", tor())


def test_a_switch_is_settled_once_connected_and_read_back() -> None:
    status = TorStatus(1, "ryu 4.34", "127.0.0.1:6653", loads=2).with_switch(
        SwitchStatus("tor1", 65537, connected=True, reconciled=2)).with_switch(
        SwitchStatus("tor2", 65538, connected=True, reconciled=1)).with_switch(
        SwitchStatus("tor3", 65539, connected=False, reconciled=2))
    assert unsettled(status, ["tor1", "tor2", "tor3", "tor4"], loads=2) == ["tor2", "tor3", "tor4"]
    assert unsettled(status, ["tor1", "tor2"]) == []
    assert tor_status.from_json(tor_status.to_json(status)) == status
    with pytest.raises(ProgramError, match="not the status of a ToR app"):
        tor_status.from_json(b"{}")


def test_who_is_being_told_of_other_ways_is_not_settled_and_a_repair_is_dated_when_the_last_one_has_it() -> None:
    programs = programs_of(inventory_of(cluster_named("type1x1/4")))
    status = TorStatus(1, "ryu 4.34", "127.0.0.1:6653", loads=1)
    for name in ("agg1", "core1"):
        status = status.with_switch(SwitchStatus(name, programs[name].dpid, connected=True, reconciled=1))
    made = repair(programs, ends_of(programs, ("agg3-core1", "core1-agg3")))
    status = status.repaired(made, ("core1", "agg1"), noticed_s=5.0, now_s=5.1)
    assert status.dead_links == ("agg3-core1", "core1-agg3") and set(status.reroutes or {}) == {"agg1", "core1"}
    assert unsettled(status, ["agg1", "core1"]) == ["agg1", "core1"]
    status = status.told(("agg1",), 5.2)
    assert unsettled(status, ["agg1", "core1"]) == ["core1"] and status.repairs[-1].in_force_s == 0.0
    status = status.told(("core1",), 5.3)
    assert unsettled(status, ["agg1", "core1"]) == []
    assert status.repairs == (RepairStatus(5.0, made.dead, 2, 5.3),)
    assert tor_status.from_json(tor_status.to_json(status)) == status


def test_of_repairs_the_latest_are_kept_and_one_that_changes_no_switch_is_in_force_at_once() -> None:
    programs = programs_of(inventory_of(cluster_named("type1x1/4")))
    status = TorStatus(1, "ryu 4.34", "127.0.0.1:6653")
    for number in range(REPAIRS_KEPT + 5):
        status = status.repaired(repair(programs, ()), (), float(number), number + 0.5)
    assert [r.noticed_s for r in status.repairs] == [float(n) for n in range(5, REPAIRS_KEPT + 5)]
    assert all(r.in_force_s == r.noticed_s + 0.5 for r in status.repairs)
