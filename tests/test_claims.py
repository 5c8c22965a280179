"""The paper's claims beside ours: what agrees, what does not, what is missing; no row is hidden."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from report_room import APPLICATIONS, keep_fig3, keep_fig8, peak

from experiments.errors import ExperimentError
from experiments.reporting.claim_setup import setup_findings
from experiments.reporting.claim_sources import SOURCES, WAITS_FOR, findings_of
from experiments.reporting.claims import Claim, Finding, amount, claim_rows, claims_of, tally
from experiments.reporting.report import CLAIMS, REASONS, _table
from experiments.runs.latest_runs import latest_finished

CLAIM = Claim("gain", "5.1", "gain", "up to 3", "x", "", "", False)


def claims() -> tuple[Claim, ...]:
    return claims_of(files("experiments.reporting").joinpath(CLAIMS).read_text())


def finding(ours: float, paper: float, neutral: float | None, **more: object) -> Finding:
    return Finding(key="gain", experiment="fig5", paper=paper, ours=ours, neutral=neutral, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "paper", "neutral", "same", "close"), [
    (2.9, 3.0, 1.0, True, True),  # factors: 1 is no effect
    (1.1, 3.0, 1.0, True, False),
    (0.9, 1.1, 1.0, False, True),  # near, but a loss in place of a gain
    (40.0, 50.0, 0.0, True, True),  # savings: 0 is no effect
    (-4.0, 4.0, 0.0, False, False),
    (24.0, 24.7, None, None, True),  # watts have no direction
    (62.5, 50.0, 0.0, True, True), (62.6, 50.0, 0.0, True, False),  # 25 %, and a little more
])
def test_direction_and_closeness_are_told_apart(ours: float, paper: float, neutral: float | None, same: bool | None,
                                                close: bool) -> None:
    one = finding(ours, paper, neutral)
    assert (one.same_direction, one.close) == (same, close)
    assert one.missed is (same is False or not close)


def test_the_best_of_many_does_not_decide_the_direction_of_an_up_to() -> None:
    one = finding(19.4, 35.2, 0.0, typical=-3.3, unit="%")
    assert one.same_direction is False and one.close is False and one.missed
    assert one.ours_said() == "19.4 % at most, -3.3 % on average"
    assert finding(2.9, 3.0, 1.0, typical=1.4, unit="x").same_direction is True


def test_what_an_up_to_says_as_it_is_worded_is_told_apart() -> None:
    best_alone, none, words = finding(1.2, 1.9, 1.0, typical=0.8), finding(0.9, 1.9, 1.0, typical=0.8), Finding(
        key="gain", experiment="fig8", holds=False, said="flat")
    assert [one.same_direction_as_worded for one in (best_alone, none, words)] == [True, False, False]
    counted = tally(claim_rows([CLAIM], [best_alone, none, words], {}, {}))
    assert (counted.same_direction, counted.as_worded, counted.comparable) == (0, 1, 3)
    assert counted.as_worded_share == pytest.approx(1 / 3)


def test_a_claim_in_words_has_a_direction_and_no_ratio() -> None:
    one = Finding(key="gain", experiment="fig8", holds=False, said="flat")
    assert (one.same_direction, one.close, one.ratio, one.missed) == (False, None, None, True)


def test_every_claim_has_a_row_and_what_is_missing_says_which_command_makes_it() -> None:
    rows = claim_rows(claims(), [], {}, {key: f"./e3 run {name}" for key, name in WAITS_FOR.items()})
    assert [row.claim.key for row in rows] == [claim.key for claim in claims()] and len(rows) == 48
    made_by_code = {one.key for one in setup_findings()}
    assert {row.claim.key for row in rows if not row.command} == made_by_code


def test_a_miss_is_explained_and_one_without_a_reason_says_so() -> None:
    missed, fine = finding(1.1, 3.0, 1.0), finding(2.9, 3.0, 1.0)
    assert claim_rows([CLAIM], [missed], {"gain": "because"}, {})[0].why == "because"
    assert claim_rows([CLAIM], [missed], {}, {})[0].why == "not explained yet"
    assert claim_rows([CLAIM], [fine], {"gain": "because"}, {})[0].why == ""
    refused = claim_rows([CLAIM], [finding(2.9, 3.0, 1.0, refused=True)], {}, {})[0]
    assert "did not keep up" in refused.why


def test_a_part_of_a_claim_may_have_a_reason_of_its_own() -> None:
    parts = [finding(1.1, 3.0, 1.0, what="average"), finding(1.1, 3.0, 1.0, what="p99")]
    rows = claim_rows([CLAIM], parts, {"gain": "both", "gain/p99": "the tail"}, {})
    assert [row.why for row in rows] == ["both", "the tail"]


def test_what_went_in_or_is_refused_is_not_counted_as_agreement() -> None:
    rows = claim_rows([CLAIM], [finding(3.0, 3.0, 1.0, kind="input"), finding(1.1, 3.0, 1.0),
                                finding(3.0, 3.0, 1.0, refused=True)], {}, {})
    counted = tally(rows)
    assert (counted.comparable, counted.same_direction, counted.with_ratio, counted.close, counted.inputs,
            counted.refused) == (1, 1, 1, 0, 1, 1)
    assert counted.direction_share == 1.0 and tally([]).direction_share is None


def test_a_finding_of_no_claim_is_refused_by_name() -> None:
    with pytest.raises(ExperimentError, match="gain"):
        claim_rows(claims(), [finding(1.0, 1.0, 1.0)], {}, {})
    with pytest.raises(ExperimentError, match="'nic-ee'"):
        claims_of("key,section,metric,value,unit,conditions,note,disagrees\nnic-ee,1,a,1,x,,,\nnic-ee,1,a,1,x,,,\n")


def test_reasons_and_sources_are_of_claims_that_there_are() -> None:
    keys = {claim.key for claim in claims()}
    assert {row["key"] for row in _table(REASONS)} <= keys
    assert set(WAITS_FOR) <= keys and set(SOURCES) <= {*WAITS_FOR.values()}


def test_the_applications_of_the_code_have_the_papers_fan_out_and_nodes() -> None:
    found = {(one.key, one.what): one for one in setup_findings()}
    assert found["fan-out", "maximum"].ours == 12
    assert found["fan-out", "average"].close
    assert "108 nodes" in found["shards", ""].said and "40 servers" in found["racks", ""].said


def test_round_trips_come_back_as_what_went_in(tmp_path: Path) -> None:
    keep_fig3(tmp_path)
    run = latest_finished("fig3", tmp_path)
    assert run is not None
    pcie, tor = findings_of("fig3", run.manifest)
    assert (pcie.key, pcie.ours_said(), pcie.kind, pcie.refused) == ("pcie-rtt", "83.3 %", "input", False)
    assert (tor.key, tor.ours_said()) == ("tor-rtt", "86.2 %")


def test_a_refused_measurement_is_not_passed_on_as_good(tmp_path: Path) -> None:
    keep_fig3(tmp_path, refused="lateness p99 at s1n1")
    run = latest_finished("fig3", tmp_path)
    assert run is not None and all(one.refused for one in findings_of("fig3", run.manifest))


@pytest.mark.parametrize(("most", "held"), [(1.6, {"nfv-fin": False, "rta-shm": True, "iot-ts": True}),
                                            (1.02, {"nfv-fin": True, "rta-shm": False, "iot-ts": False})])
def test_power_that_rises_is_right_for_two_and_power_that_is_flat_for_one(tmp_path: Path, most: float,
                                                                         held: dict[str, bool]) -> None:
    keep_fig8(tmp_path, most)
    run = latest_finished("fig8", tmp_path)
    assert run is not None
    assert {one.what: one.holds for one in findings_of("fig8", run.manifest)} == held


def test_what_type1_gains_on_beefy_is_told_by_class_and_by_application() -> None:
    points = {f"{name}/{cluster}/512": peak(name, cluster, 2e6 if cluster == "type1x3" and name == "nfv-fin" else 1e6,
                                            500.0, 5e-5 if cluster == "type1x3" else 1e-4, holds=name != "iot-ts")
              for name in APPLICATIONS for cluster in ("type1x3", "beefyx3")}
    points["nfv-fin/type1x3/256"] = peak("nfv-fin", "type1x3", 9e6, 500.0)  # another size: not Figure 5's
    found = {(one.key, one.what): one for one in findings_of("fig5", {"points": points})}
    assert found["nfv-fin-ee", ""].ours == 2.0 and found["ee-cluster", ""].ours == 2.0
    assert found["ee-nfv", ""].ours == pytest.approx(4 / 3) and found["ee-rta", ""].ours == 1.0
    assert found["mean-saved", "RTA"].ours == pytest.approx(50.0) and found["p99-saved", "NFV"].same_direction
    assert found["rta-ptc-latency", "tail"].ours == pytest.approx(-50.0) and found["rta-ptc-ee", ""].ours == 0.0
    assert found["latency-cluster", ""].same_direction and not found["latency-cluster", ""].missed
    assert {key for key, one in found.items() if one.refused} == {
        ("ee-cluster", ""), ("ee-iot", ""), ("mean-saved", "IOT"), ("p99-saved", "IOT"), ("latency-cluster", ""),
        ("nfv-fin-ee", "gains the most"), ("rta-ptc-ee", "benefits the least")}


@pytest.mark.parametrize(("application", "rps", "most", "least"), [
    ("nfv-fin", 3e6, True, True), ("rta-shm", 3e6, False, True), ("rta-ptc", 3e6, False, False)])
def test_who_gains_most_and_who_least_is_held_against_the_text(application: str, rps: float, most: bool,
                                                             least: bool) -> None:
    points = {f"{name}/{cluster}/512": peak(name, cluster, rps if (name, cluster) == (application, "type1x3") else 1e6,
                                            500.0) for name in APPLICATIONS for cluster in ("type1x3", "beefyx3")}
    found = {(one.key, one.what): one for one in findings_of("fig5", {"points": points})}
    assert found["nfv-fin-ee", "gains the most"].holds is most and application in found["nfv-fin-ee",
                                                                                         "gains the most"].said
    assert found["rta-ptc-ee", "benefits the least"].holds is least


@pytest.mark.parametrize(("slower", "held"), [(1.04, True), (1.06, False)])
def test_a_latency_cost_is_held_against_the_bound_that_the_text_gives(slower: float, held: bool) -> None:
    points = {f"{name}/{cluster}/512": peak(name, cluster, 1e6, 500.0, slower if (name, cluster) == (
        "iot-dh", "type1x3") else 1.0) for name in APPLICATIONS for cluster in ("type1x3", "beefyx3")}
    found = next(one for one in findings_of("fig5", {"points": points}) if one.key == "latency-cluster")
    assert found.same_direction is held and "iot-dh" in found.said


def test_the_slowest_decision_is_held_against_the_shortest_migration() -> None:
    rows = [["100 servers, 400 microservices: decision p50, p99", "0.1, 0.3 ms", ""],
            ["50,000 servers, 200,000 microservices: decision p50, p99", "0.6, 2.6 ms", ""]]
    found, = findings_of("fig11", {"rows": rows})
    assert (found.key, found.holds, found.said) == ("migration-time", True,
                                                   "p99 of 2.6 ms at most (50,000 servers, 200,000 microservices)")
    rows[0][1] = "0.1, 10.5 ms"
    assert findings_of("fig11", {"rows": rows})[0].holds is False


def test_sharing_ports_is_held_against_a_nic_of_the_hosts_own() -> None:
    points = {f"{name}/{cluster}": peak(name, cluster, 3e6 if (name, cluster) == ("nfv-fin", "type2x2") else 1e6, 500.0)
              for name in APPLICATIONS for cluster in ("type2x2", "type2dx2")}
    found = {(one.key, one.what): one for one in findings_of("fig9", {"points": points})}
    assert found["shared-throughput", "NFV-FIN"].ours == 3.0 and found["shared-ee", "the most"].ours == 3.0
    assert found["shared-least", "IOT-TS gains least"].holds and found["shared-least", "latency the same"].holds
    assert found["shared-bandwidth", ""].kind == "set-up" and found["shared-bandwidth", ""].ours == 4.0
    points["iot-ts/type2x2"] = peak("iot-ts", "type2x2", 2e6, 500.0, 2e-4)
    found = {(one.key, one.what): one for one in findings_of("fig9", {"points": points})}
    assert found["shared-least", "IOT-TS gains least"].holds is False
    assert found["shared-least", "latency the same"].holds is False


def test_dollars_and_budgets_follow_from_the_best_other_cluster() -> None:
    points = {f"iot-ts/{cluster}": peak("iot-ts", cluster, rps, watts, usd=usd) for cluster, rps, watts, usd in (
        ("type2x2", 2e6, 400.0, 10_000.0), ("beefyx4", 1e6, 400.0, 10_000.0), ("wimpyx4", 5e5, 400.0, 10_000.0))}
    (cost,) = findings_of("fig10", {"points": points})
    throughput, power = findings_of("table5", {"points": points})
    assert cost.ours == 2.0 and throughput.ours == 2.0 and power.ours == 50.0 and power.close


def test_an_experiment_may_keep_findings_of_its_own() -> None:
    own = {"key": "cost-cluster", "paper": 1.9, "ours": 1.4, "unit": "x", "neutral": 1.0}
    (one,) = findings_of("of-mine", {"paper_claims": [own]})
    assert one.experiment == "of-mine" and one.same_direction and one.close is False


@pytest.mark.parametrize(("value", "unit", "said"), [(6.4496, "x", "6.45x"), (83.3, "%", "83.3 %"), (12, "", "12"),
                                                     (1234567.0, "W", "1,234,567 W")])
def test_amounts_read_as_people_write_them(value: float, unit: str, said: str) -> None:
    assert amount(value, unit) == said
