"""What the tests that need root share: the skip, and a running world that is always stopped."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.world import World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root, for namespaces and switches: use sudo"))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start("test") as started:
        yield started
