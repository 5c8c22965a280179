"""What is pushed before a microservice moves is its own source, and no other's."""

from __future__ import annotations

from pathlib import Path

import pytest

from microservices.errors import ServiceError
from nodes.artifact import artifact_of

MINE = """from microservices.service import Microservice, Output


class Shout(Microservice):
    name, memory_mb = "shout", 1

    def handle(self, request, state):
        return (Output(request.payload.upper()),)
"""


def test_the_artifact_of_a_built_in_is_the_file_it_stands_in() -> None:
    source = Path(__file__).parent.parent / "microservices" / "kvs.py"
    assert artifact_of("kvs") == source.read_bytes()
    assert artifact_of("nids") != artifact_of("kvs")


def test_the_artifact_of_a_microservice_of_ones_own_is_its_file(tmp_path: Path) -> None:
    file = tmp_path / "shout.py"
    file.write_text(MINE)
    assert artifact_of(f"{file}:Shout") == MINE.encode()


def test_a_microservice_that_there_is_not_has_no_artifact() -> None:
    with pytest.raises(ServiceError, match="nobody"):
        artifact_of("nobody")
