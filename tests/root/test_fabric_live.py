"""Four racks in two pods under steady traffic between pods: links between switches are cut, gone round, and healed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.fabric_cut import CUTS, cut_and_heal

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions("type1x1/4", label="fabric")) as bed:
        yield bed


def test_goodput_goes_on_round_a_cut_link_flows_of_other_links_keep_their_way_and_healing_restores(
        bed: Testbed, tmp_path: Path) -> None:
    rows, timeline = cut_and_heal(bed, tmp_path, print)
    for row in rows:
        print(*row, sep=" | ")
    assert all(ok for *_, ok in rows), [row for row in rows if not row[-1]]
    assert [m.words for m in timeline.moments] == 2 * [f"link {one}-{other}" for one, other in CUTS]
    assert not bed.broken


def test_a_link_between_switches_fails_by_its_two_switches_once_and_the_app_tells_what_follows(bed: Testbed) -> None:
    bed.fail("link", "core2", "agg1")
    with pytest.raises(ExperimentError, match="the link of agg1-core2 is down already"):
        bed.fail("link", "core2-agg1")
    with pytest.raises(ExperimentError, match="no link between core2 and tor1"):
        bed.fail("link", "core2", "tor1")
    bed.heal("link", "agg1", "core2")
    bed.wait_until_ready()
