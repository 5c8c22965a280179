"""Servers of one's own: the example of the documentation, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.measurement.energy import power_between
from microservices.measured import Column
from topologies import catalog, node_file
from topologies.catalog import SYSTEMS, add_systems, cluster_named
from topologies.errors import TopologyError
from topologies.inventory import inventory_of
from topologies.node_file import PROCESSORS, SMARTNICS, nodes_of, read_nodes, use_nodes

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "nodes.toml"
TEXT = EXAMPLE.read_text()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SYSTEMS", dict(SYSTEMS))
    use_nodes(EXAMPLE)


def test_the_example_can_be_named_in_a_cluster_beside_the_paper_s_servers(own: None) -> None:
    found = inventory_of(cluster_named("myboxx2+oldboxx1+type1x1"))
    assert [s.model for s in found.servers] == ["mybox", "mybox", "oldbox", "type1"]
    assert (found.servers[0].idle_watts, found.servers[0].peak_watts, found.servers[0].cost_usd) == (120, 380, 7800)
    host, card = found.node("s1h"), found.node("s1n2")
    assert (host.cores, host.family, host.speed) == (16, "xeon", pytest.approx(3.0 / 2.5 * 1.4))
    assert (card.model, card.cores, card.family, card.speed, card.busy_watts) == ("fastnic", 24, "cnmips", 1.5, 38)
    assert [p.gbps for p in found.ports_of_server(host)] == [25, 25] and found.pcie_of_smartnic("s1n1").gbps == 63
    assert [p.gbps for p in found.ports_of_server(found.node("s3h"))] == [10, 10]
    assert len(inventory_of(cluster_named("mybox:3x1")).of_role("smartnic")) == 3


def test_the_example_s_watts_are_what_the_energy_model_bills(own: None) -> None:
    found = inventory_of(cluster_named("myboxx1+oldboxx1"))
    second = 10**9
    before = {n.name: {"now_ns": 0} for n in found.nodes if n.role in ("host", "smartnic")}
    busy = {"s1h": {"busy_ns sql": 16 * second}, "s1n1": {"busy_ns api_gateway": 24 * second},
            "s2h": {"busy_ns top_ranker": 12 * second}}
    after = {name: {"now_ns": second, **busy.get(name, {})} for name in before}
    power = power_between(before, after, found, Column.LINUX)
    assert power.node("s1n1").active_watts == pytest.approx(38)  # as it states
    assert power.node("s1h").active_watts == pytest.approx(114.7 * 16 * 3.0 / 30)  # by cores and clock
    assert power.node("s2h").active_watts == pytest.approx(120)  # no SmartNIC in it: peak minus idle
    assert power.servers[1].wall_watts == pytest.approx(210)


def test_every_processor_and_card_of_the_catalogue_can_be_used() -> None:
    for name in PROCESSORS:
        for card in SMARTNICS:
            text = f'[servers.a]\nhost="{name}"\nsmartnics=["{card}"]\nidle_watts=1\npeak_watts=2\ncost_usd=3\n'
            server = nodes_of(text)["a"]
            assert (server.host, server.smartnics) == (PROCESSORS[name], (SMARTNICS[card],))


@pytest.mark.parametrize(("old", "new", "words"), [
    ("cores = 16", "cores = 0", ["processors.newxeon.cores", "0", ">= 1"]),
    ("cores = 16", "cores = 1.5", ["processors.newxeon.cores", "1.5", "int"]),
    ("clock_ghz = 3.0", "clock_ghz = 3000", ["newxeon.clock_ghz", "3000", "<= 10"]),
    ("clock_ghz = 3.0", "clock_ghz = nan", ["newxeon.clock_ghz", "nan"]),
    ("memory_gb = 128", "memory_gb = inf", ["newxeon.memory_gb", "inf"]),
    ('family = "cnmips"', 'family = "arm"', ["newoct", "'arm'", "xeon and cnmips"]),
    ('processor = "newoct"', 'processor = "nonesuch"', ["smartnics.fastnic.processor", "nonesuch", "newoct"]),
    ("idle_watts = 120", "idle_watts = -3", ["servers.mybox.idle_watts", "-3", ">= 0"]),
    ("idle_watts = 120", "idle_watts = 500", ["servers.mybox", "380", "500"]),
    ('"fastnic", "fastnic"', '"fastnic", 3', ["servers.mybox.smartnics.1", "3"]),
    ('"fastnic", "fastnic"', '"fastnic", ' * 9, ["mybox", "9 SmartNICs", "0 to 8"]),
    ("[10, 10]", "[10, 1e12]", ["servers.oldbox.plain_nics_gbps.1", "1000"]),
    ("[10, 10]", "[]", ["servers.oldbox", "at least one"]),
    ("cost_usd = 7800", "price = 7800", ["servers.mybox", "price"]),
    ("cost_usd = 7800", "", ["servers.mybox", "cost_usd"]),
    ("[servers.oldbox]", "[servers.beefy]", ["servers.beefy", "stands"]),
    ("[processors.newxeon]", "[processors.octeon]", ["processors.octeon", "taken"]),
    ("[servers.oldbox]", '[servers."Old Box"]', ["Old Box", "a-z"]),
    ("[servers.oldbox]", "[server.oldbox]", ["server"]), ("[servers.mybox]", "[servers.mybox", ["TOML", "line"])])
def test_a_bad_file_is_refused_with_the_entry_the_value_and_the_limit(
        tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in TEXT
    file = tmp_path / "bad.toml"
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(TopologyError) as refused:
        read_nodes(file)
    assert all(word in str(refused.value) for word in [str(file), *words])


@pytest.mark.parametrize(("data", "words"), [
    (b"", "least is one"), (b"\xff", "not UTF-8"), (b"a=" + b"[" * 100_000, "not TOML"),
    (b"a=" + b"9" * 5000, "not TOML"),
    (b"#" * 1_000_001, "1000001 bytes"), (b"servers = 3", "servers is 3"), (b"[servers]\na = 3", r"servers\.a")])
def test_a_file_that_is_none_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(data)
    with pytest.raises(TopologyError, match=words):
        read_nodes(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"nowhere\.toml"):
        read_nodes(tmp_path / "nowhere.toml")


def test_a_name_stands_for_one_server_only(own: None) -> None:
    servers = nodes_of(TEXT)
    add_systems(servers)  # the same again
    with pytest.raises(TopologyError, match="'mybox' is taken"):
        add_systems({"mybox": servers["oldbox"]})
    with pytest.raises(TopologyError, match="'My Box'"):
        add_systems({"My Box": servers["mybox"]})


@given(st.from_regex(catalog.SERVER_NAME, fullmatch=True), st.integers(1, 240), st.integers(0, 8))
def test_whatever_a_server_is_called_its_clusters_are_understood(name: str, count: int, nics: int) -> None:
    match = catalog._PART.fullmatch(f"{name}:{nics}x{count}")
    assert match is not None and (match["model"], match["nics"], match["count"]) == (name, str(nics), str(count))
    plain = catalog._PART.fullmatch(f"{name}x{count}")
    assert plain is not None and (plain["model"], plain["count"]) == (name, str(count))


Values = st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=8), st.lists(st.integers(), max_size=3),
                   st.dictionaries(st.sampled_from(("cores", "host")), st.integers(), max_size=2))
SAID = node_file.tomllib.loads(TEXT)
PLACES = [(section, name, field) for section, entries in SAID.items() for name in entries for field in entries[name]]


@given(st.sampled_from(PLACES), Values)
def test_whatever_stands_in_a_field_is_servers_or_refused_with_the_entry(
        place: tuple[str, str, str], value: object) -> None:
    section, name, field = place
    file = {**SAID, section: {**SAID[section], name: {**SAID[section][name], field: value}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_file.tomllib, "loads", lambda _: file)
        try:
            assert nodes_of("").keys() == SAID["servers"].keys()
        except TopologyError as refused:
            assert name in str(refused) and "." in str(refused)
