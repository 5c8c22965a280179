"""The picture of a cluster: everything is in it or said to be left out, and no words overlap."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import ExperimentError
from experiments.views.cluster_picture import Box, Picture, picture_of
from topologies.catalog import SYSTEMS, cluster_named
from topologies.inventory import Inventory, inventory_of

plot = pytest.importorskip("experiments.views.plot", reason="matplotlib is not installed")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = ("type1x3", "type2x2", "beefyx2+wimpyx2", "superbeefyx1", "type2x40", "type2:8x2+type1:0x1", "type1x1/4",
            "type2x40/3", "type1x2/250", "beefyx20+wimpyx20")
HOLDERS = ("chassis",)


def inventory(name: str, clients: int = 1) -> Inventory:
    return inventory_of(cluster_named(name, clients=clients))


def words(picture: Picture) -> str:
    return "\n".join([picture.title, *picture.caption, *(line for box in picture.boxes for line in box.lines),
                      *(wire.label for wire in picture.wires)])


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h


def holds(outer: Box, inner: Box) -> bool:
    return (outer.x <= inner.x and outer.y <= inner.y and inner.x + inner.w <= outer.x + outer.w
            and inner.y + inner.h <= outer.y + outer.h)


@pytest.mark.parametrize("name", ["type1x3", "type2x2", "beefyx2+wimpyx2", "type1x1/4"])
def test_a_small_cluster_is_drawn_with_every_name_address_and_rate(name: str) -> None:
    room = inventory(name)
    picture = picture_of(room)
    said = words(picture)
    assert not picture.abridged
    for node in room.nodes:
        assert re.search(rf"\b{node.name}\b", said) and re.search(rf"\b{re.escape(node.ip)}\b", said), node
        assert node.mac in said or node.role in ("client", "controller")
    for switch in room.switches:
        assert switch.name in said and switch.gateway in said
    for port in room.ports:
        if port.peer not in {s.name for s in room.switches}:
            assert f"{port.interface}\n{port.gbps:g} Gb/s" in said
    assert len([w for w in picture.wires if w.kind == "pcie"]) == len(room.pcie)


def test_what_the_largest_rack_leaves_out_adds_up_to_it() -> None:
    picture = picture_of(inventory("type2x40"))
    (abridged,) = picture.abridged
    drawn = sum(box.kind == "smartnic" for box in picture.boxes)
    left_out = int(re.findall(r"(\d+) SmartNICs", abridged)[0])
    assert drawn + left_out == 160 and "servers 2 to 39" in abridged
    assert picture.width <= 24 and abridged in " ".join(picture.caption)


def test_a_fat_tree_shows_every_link_between_the_switches_that_it_shows() -> None:
    picture = picture_of(inventory("type1x1/4"))
    assert sum(wire.kind == "fabric" for wire in picture.wires) == 16
    assert "40 Gb/s each" in words(picture)


def test_a_crowd_of_clients_is_a_dashed_box() -> None:
    picture = picture_of(inventory("type1x1", clients=64))
    assert "Nodes c2 to c63 are left out." in picture.abridged
    assert sum(box.kind == "client" for box in picture.boxes) == 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(sorted(SYSTEMS)), st.integers(0, 8), st.integers(1, 40)),
                min_size=1, max_size=5), st.integers(1, 9), st.integers(0, 6))
def test_in_no_cluster_do_boxes_overlap(parts: list[tuple[str, int, int]], racks: int, clients: int) -> None:
    name = "+".join(f"{model}:{nics}x{count}" for model, nics, count in parts) + f"/{racks}"
    if any(nics == 0 and model in ("type1", "type2") for model, nics, _ in parts):
        name = name.replace(":0x", ":1x")
    picture = picture_of(inventory(name, clients))
    boxes = picture.boxes
    for i, one in enumerate(boxes):
        for other in boxes[i + 1:]:
            inside = (one.kind in HOLDERS and holds(one, other)) or (other.kind in HOLDERS and holds(other, one))
            assert inside or not overlap(one, other), (name, one, other)


@pytest.mark.parametrize("name", CLUSTERS)
def test_no_words_overlap_and_all_stand_inside_their_box_and_picture(name: str) -> None:
    picture = picture_of(inventory(name))
    with plot.styled():
        figure = plot.figure_of(picture)
        renderer = FigureCanvasAgg(figure).get_renderer()
        axes = figure.axes[0]
        texts = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
        page = figure.bbox
        for i, (said, place) in enumerate(texts):
            assert page.x0 <= place.x0 and place.x1 <= page.x1 and page.y0 <= place.y0 and place.y1 <= page.y1, said
            for other, its in texts[i + 1:]:
                assert not (place.x0 < its.x1 and its.x0 < place.x1 and place.y0 + 1 < its.y1
                            and its.y0 + 1 < place.y1), (said, other)
        unplaced = dict(texts)
        for box in picture.boxes:
            left, right = (axes.transData.transform((x, box.y))[0] for x in (box.x, box.x + box.w))
            for line in box.lines:
                extent = unplaced[line]
                assert extent.width <= right - left, (line, box)


@pytest.mark.parametrize("suffix", plot.FORMATS)
def test_each_format_is_written_as_such(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rack.{suffix}"
    plot.save_picture(picture_of(inventory("type1x1")), path)
    assert path.read_bytes().lstrip().startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix])


def test_the_same_cluster_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot.save_picture(picture_of(inventory("type1x3")), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("name", ["rack.gif", "rack", "rack.svg.txt"])
def test_an_unknown_format_is_refused_with_those_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=rf"{re.escape(name)}.*\.svg, \.png, \.pdf"):
        plot.save_picture(picture_of(inventory("type1x1")), tmp_path / name)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"nowhere/rack\.svg: No such file"):
        plot.save_picture(picture_of(inventory("type1x1")), tmp_path / "nowhere" / "rack.svg")


@pytest.mark.parametrize(("file", "cluster"), [("rack-type1x3.svg", "type1x3"), ("racks-type1x1-4.svg", "type1x1/4")])
def test_the_pictures_in_the_documentation_are_of_the_clusters_as_they_are(file: str, cluster: str) -> None:
    drawn = [text.text for text in ElementTree.parse(ROOT / "docs" / file).iter("{http://www.w3.org/2000/svg}text")]
    wanted = [line for line in words(picture_of(inventory(cluster))).splitlines() if line]
    assert sorted(filter(None, drawn)) == sorted(wanted)
