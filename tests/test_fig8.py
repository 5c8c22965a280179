"""Figure 8's arithmetic and placement: power over load, what counts as proportional, and where E3 runs what."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from controller.errors import PlacementError
from experiments.errors import ExperimentError
from experiments.measurement.e3_placement import placed_for_peak, side_of
from experiments.power_over_load import (
    APPLICATIONS,
    LOADS,
    LoadPoint,
    figure_data,
    is_rising,
    judged,
    mean_of,
    share_of_rise,
    spread,
)
from experiments.views.figures import chart_of, stored
from microservices.applications import application_named
from topologies.catalog import LIQUIDIO2_ONE_PORT, cluster_named
from topologies.cluster import Cluster, Rack

TYPE1 = cluster_named("type1x3")
IDLE_WATTS = 294.0


def curve(name: str, *watts: float) -> list[LoadPoint]:
    return [LoadPoint(name, share, share * 1e5, share * 1e5, 1e-4, 2e-4, IDLE_WATTS, w, w - IDLE_WATTS, 400.0)
            for share, w in zip(LOADS, watts, strict=True)]


GOOD = {"nfv-fin": curve("nfv-fin", 350, 354, 357, 360, 363, 366), "rta-shm": curve("rta-shm", 350, 430, 480, 530, 570,
                                                                                   610),
        "iot-ts": curve("iot-ts", 350, 400, 440, 470, 480, 490)}


def test_two_rising_curves_and_a_flat_one_are_what_the_text_says() -> None:
    rows, holds = judged(GOOD)
    assert holds and len(rows) == 3 * (len(LOADS) + 1) + 2


@pytest.mark.parametrize(("name", "watts"), [
    ("nfv-fin", (350, 380, 400, 410, 420, 430)),  # not flat
    ("nfv-fin", (640, 641, 642, 643, 644, 645)),  # flat, and not low
    ("rta-shm", (350, 430, 400, 530, 570, 610)),  # falls
    ("iot-ts", (350, 351, 352, 353, 354, 355)),  # does not rise enough
])
def test_a_curve_of_another_form_fails(name: str, watts: tuple[float, ...]) -> None:
    rows, holds = judged({**GOOD, name: curve(name, *watts)})
    assert not holds and any(name in r[0] and "off" in r[0] for r in rows)


def test_noise_is_no_fall() -> None:
    assert is_rising(curve("x", 350, 400, 399, 430, 460, 480))
    assert not is_rising(curve("x", 350, 400, 390, 430, 460, 480))
    assert spread(curve("x", 350, 400, 399, 430, 460, 700)) == 2.0


def test_proportional_power_has_a_fifth_of_its_rise_at_a_fifth_of_the_load() -> None:
    assert share_of_rise(curve("x", 300, 320, 340, 360, 380, 400), 0.2) == pytest.approx(0.2)
    assert share_of_rise(GOOD["iot-ts"], 0.2) == pytest.approx(50 / 140)
    assert share_of_rise(curve("x", 300, 300, 300, 300, 300, 300), 0.4) == 0.0


def test_power_is_shown_over_idle_power_and_load_in_percent_of_the_peak() -> None:
    chart = chart_of(stored("fig8", figure_data(GOOD)))
    shown = {c.label: c for c in chart.curves}["rta-shm"]
    assert shown.xs == (0.0, 20.0, 40.0, 60.0, 80.0, 100.0) and shown.ys[0] == pytest.approx(350 / 294)


def test_a_refused_point_is_marked_and_fails_the_run() -> None:
    points = list(GOOD["iot-ts"])
    points[2] = msgspec.structs.replace(points[2], refused=("overruns per request at s1h: 30 us, the limit is 20 us",))
    rows, holds = judged({**GOOD, "iot-ts": points})
    assert not holds and any("iot-ts at 40%" in r[0] and "REFUSED" in r[1] for r in rows)
    assert chart_of(stored("fig8", figure_data({**GOOD, "iot-ts": points}))).any_refused


def test_a_bad_reply_at_a_peak_is_shown_and_fails_the_run() -> None:
    peak = msgspec.structs.replace(GOOD["iot-ts"][-1], share=-1.0)
    assert judged(GOOD, [peak])[1]
    rows, holds = judged(GOOD, [msgspec.structs.replace(peak, bad={"foreign": 8})])
    assert not holds and "foreign" in rows[0][1] and "off" in rows[0][0]


def test_the_mean_of_runs_is_refused_if_one_is() -> None:
    one, other = curve("x", 350, 400, 430, 460, 480, 500)[1:3]
    mean = mean_of([one, msgspec.structs.replace(other, refused=("late",), bad={"lost": 2})])
    assert mean.wall_watts == 415 and mean.refused == ("late",) and mean.bad == {"lost": 2}
    assert not mean_of([one, one]).refused


def test_nfv_runs_on_smartnics_and_what_a_host_does_better_on_hosts() -> None:
    sides = {name: {s.service: side_of(s.service, name) for s in application_named(name).stages}
             for name in (*APPLICATIONS, "rta-sf")}
    assert set(sides["nfv-fin"].values()) == {"smartnic"}
    assert sides["rta-shm"] == {"count": "smartnic", "ema": "smartnic", "sql": "host", "bm25": "smartnic"}
    assert sides["iot-ts"] == {"api_gateway": "host", "sql": "host", "ema": "smartnic", "spike": "smartnic",
                               "recommend": "smartnic"}
    assert sides["rta-sf"]["spike"] == "host"  # section 5.2


def test_of_twitter_analytics_only_the_count_is_on_smartnics_as_section_5_1_says() -> None:
    sides = {s.service: side_of(s.service, "rta-ptc") for s in application_named("rta-ptc").stages}
    assert sides == {"count": "smartnic", "knn": "host", "top_ranker": "host"}
    assert side_of("knn", "iot-dh") == "smartnic"  # the text says nothing of it there, and Table 1 has it better


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_is_spread_for_the_highest_rate_that_fits(name: str) -> None:
    application = application_named(name)
    placed = placed_for_peak(application, TYPE1)
    primaries = [i for i in application.instances if not i.backup]
    assert set(placed.nodes) == {i.number for i in primaries}
    for instance in primaries:
        role = "host" if placed.nodes[instance.number].endswith("h") else "smartnic"
        assert role == side_of(instance.service, name)
    assert placed.most_rps > 1e4 and 0 < placed.unloaded_s < 1e-3 and placed.limit.startswith("the cores of")
    used = {node for node in placed.nodes.values() if not node.endswith("h")}
    assert used == {"s1n1", "s2n1", "s3n1"}


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(PlacementError, match="must run on a smartnic; beefyx2 has none"):
        placed_for_peak(application_named("nfv-fin"), cluster_named("beefyx2"))
    card = dataclasses.replace(TYPE1.racks[0].servers[0].smartnics[0].processor, memory_gb=0.001)
    small = dataclasses.replace(TYPE1.racks[0].servers[0],
                                smartnics=(dataclasses.replace(LIQUIDIO2_ONE_PORT, processor=card),))
    with pytest.raises(ExperimentError, match="nfv-fin does not fit on small"):
        placed_for_peak(application_named("nfv-fin"), Cluster("small", (Rack((small,)),)))
