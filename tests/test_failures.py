"""What can fail, as words: which names each kind takes, and what is said of the others."""

from __future__ import annotations

import pytest

from experiments.emulation.failures import KINDS, Failure, failure_of, part_of, share_of
from experiments.errors import ExperimentError
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type2x1"))
RACKS = inventory_of(cluster_named("type1x1/2"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_is_so_when_it_is_broken_and_when_it_is_mended(kind: str) -> None:
    known = KINDS[kind]
    names = known.names(RACK)[:known.fewest]
    failure = failure_of(RACK, kind, names, 0.5 if known.takes_share else 0.0)
    assert failure.said() != failure.said(mended=True)
    assert all(name in failure.said() and name in failure.said(mended=True) for name in names)
    assert failure.same_part(part_of(RACK, kind, names))


def test_links_between_switches_fail_by_either_of_their_names_and_hosts_without_a_port_by_none() -> None:
    names = KINDS["link"].names(RACKS)
    assert {"tor1-agg1", "agg1-tor1", "r1s1n1"} <= set(names)
    assert "r1s1h" not in names


@pytest.mark.parametrize("names", [("tor1-agg1",), ("agg1-tor1",), ("tor1", "agg1"), ("agg1", "tor1")])
def test_a_link_between_switches_is_one_part_however_it_is_named(names: tuple[str, ...]) -> None:
    failure = failure_of(RACKS, "link", names)
    assert failure == Failure("link", ("tor1-agg1",))
    assert failure.same_part(part_of(RACKS, "link", ["agg1-tor1"]))
    assert failure_of(RACKS, "loss", names, 0.5).names == ("tor1-agg1",)


def test_a_node_s_link_may_be_named_with_its_switch() -> None:
    assert failure_of(RACK, "link", ["tor1", "s1n1"]) == failure_of(RACK, "link", ["s1n1"])


def test_between_switches_that_are_not_linked_nothing_can_fail() -> None:
    with pytest.raises(ExperimentError, match=r"no link between tor1 and tor2; tor1 is linked to .*agg1, agg2"):
        failure_of(RACKS, "link", ["tor1", "tor2"])


@pytest.mark.parametrize(("kind", "names", "share", "words"), [
    ("lnk", ["s1n1"], 0.0, "no kind of failure 'lnk' .did you mean link"),
    ("smartnic", ["s1h"], 0.0, "no SmartNIC 's1h'"),
    ("host", ["s1n1"], 0.0, "no host 's1n1'"),
    ("link", ["s1h"], 0.0, "no node or switch interface whose link can fail 's1h'"),
    ("hang", ["c1"], 0.0, "no agent 'c1'"),
    ("link", [], 0.0, "link of 0 parts .none.: name one; usage: link NODE"),
    ("link", ["s1n1", "s1n2"], 0.0, "no link between s1n1 and s1n2; s1n1 is linked to tor1"),
    ("link", ["s1n1", "s1n2", "c1"], 0.0, "3 parts"),
    ("link", ["s1h", "tor1"], 0.0, "no link between s1h and tor1; s1h is linked to no switch"),
    ("link", ["tor1", "tor9"], 0.0, "no node or switch 'tor9' .did you mean tor1"),
    ("link", ["tor1"], 0.0, "link tor1: which of its links. Name the other end too: s1n1, s1n2, s1n3, s1n4, c1, ctl1"),
    ("tor", ["tor1"], 0.0, "it takes no names"),
    ("partition", [], 0.0, "name 1 to 100"),
    ("partition", ["s1h", "s1h"], 0.0, "each can be named once"),
    ("loss", ["s1n1"], 0.0, "a share of 0 .* above 0 and at most 1"),
    ("loss", ["s1n1"], 1.01, "a share of 1.01"),
    ("loss", ["s1n1"], float("nan"), "a share of nan"),
    ("link", ["s1n1"], 0.5, "link takes no share, not 0.5")])
def test_what_cannot_fail_so_is_refused_with_what_can(kind: str, names: list[str], share: float, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        failure_of(RACK, kind, names, share)


def test_the_controller_fails_with_or_without_the_name_of_its_node() -> None:
    assert failure_of(RACK, "controller", []).said() == "the resource controller of this rack is dead"
    assert failure_of(RACK, "controller", ["ctl1"]).said() == "the resource controller of ctl1 is dead"
    with pytest.raises(ExperimentError, match="no controller node 's1h'"):
        failure_of(RACK, "controller", ["s1h"])


def test_a_failure_is_written_as_it_is_typed() -> None:
    assert Failure("loss", ("s1n1",), 0.02).words == "loss s1n1 0.02"
    assert Failure("loss", ("s1n1",), 0.02).heal_words == "loss s1n1"
    assert Failure("partition", ("s1h", "s1n1")).words == "partition s1h s1n1"
    assert (share_of("2%"), share_of("0.5")) == (0.02, 0.5)
    with pytest.raises(ExperimentError, match="'a lot' is no share"):
        share_of("a lot")
