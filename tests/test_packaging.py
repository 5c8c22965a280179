"""What setup.py and the lock promise, held against what is on disk."""

import re
import runpy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

setuptools = pytest.importorskip("setuptools")
ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("topologies", "microservices", "nodes", "controller", "experiments")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    with mock.patch.object(setuptools, "setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return dict(setup.call_args.kwargs)


def named(line: str) -> str:
    """Return the name of a requirement, as package indexes spell it."""
    name = re.split(r"[=<>;\[ ]", line.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(path: str) -> list[str]:
    lines = (ROOT / path).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_package_on_disk_is_packaged_and_no_test_is(settings: dict[str, Any]) -> None:
    on_disk = {".".join(p.parent.relative_to(ROOT).parts) for f in FLOORS for p in (ROOT / f).rglob("__init__.py")}
    assert set(settings["packages"]) == on_disk


def test_every_data_file_beside_a_module_is_packaged(settings: dict[str, Any]) -> None:
    beside = {p for f in FLOORS for p in (ROOT / f).rglob("*")
              if p.is_file() and p.suffix not in (".py", ".pyc")}
    packaged = {p for package, patterns in settings["package_data"].items() for pattern in patterns
                for p in (ROOT / package.replace(".", "/")).glob(pattern)}
    assert not beside - packaged


def test_every_line_of_the_lock_is_one_exact_version() -> None:
    assert not [line for line in requirements("requirements.lock") if not re.match(r"[a-z0-9-]+==[\w.]+( ;|$)", line)]


def test_the_lock_holds_all_that_is_asked_for(settings: dict[str, Any]) -> None:
    asked = {named(line) for line in requirements("requirements.in")}
    assert asked <= {named(line) for line in requirements("requirements.lock")}
    installed = settings["install_requires"] + settings["extras_require"]["test"]
    assert {named(line) for line in installed} <= asked
