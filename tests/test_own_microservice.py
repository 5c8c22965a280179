"""The microservice and the application of docs/microservices.md, taken from the page and run in this process."""

import re
import runpy
import sys
from itertools import islice
from pathlib import Path

import pytest
from docs_page import printed, write_files

from experiments.clients.oracle import Oracle
from experiments.clients.payload_workload import PayloadWorkload
from experiments.emulation.chosen_application import application_of, requests_of
from experiments.errors import ExperimentError
from microservices.application_file import load_application, workload_in
from microservices.direct import DirectRun
from microservices.errors import ApplicationError, ServiceError
from microservices.service import Request, new_service, service_class
from microservices.workloads import workload_named


@pytest.fixture
def page(tmp_path: Path) -> Path:
    assert write_files(tmp_path) == ["scores.py", "scores.yaml", "scores_app.py", "try_scores.py", "scores.txt"]
    return tmp_path


def test_the_page_s_script_prints_what_the_page_says(page, capsys) -> None:
    runpy.run_path(str(page / "try_scores.py"))
    assert capsys.readouterr().out == printed()


def test_the_application_in_yaml_and_in_python_is_the_same(page) -> None:
    assert load_application(page / "scores.yaml") == load_application(page / "scores_app.py")
    assert workload_in(page / "scores.yaml") == workload_in(page / "scores_app.py") == f"{page / 'scores.py'}:Games"


def test_the_page_s_workload_finds_every_reply_right_and_a_wrong_one_wrong(page) -> None:
    application = load_application(page / "scores.yaml")
    run, workload = DirectRun(application), workload_named(workload_in(page / "scores.yaml"), 3)
    bests: dict[bytes, int] = {}
    stages = set()
    for request in islice(workload.requests(), 400):
        answer = run.ask(request)
        assert workload.check_reply(request, answer.payload) is None
        assert workload.check_reply(request, b"somebody 1") is not None
        player, score = request.lower().split()
        bests[player] = max(bests.get(player, 0), int(score))
        assert answer.payload == b"%b %d" % (player, bests[player])
        stages |= {application.instances[n].name for n in answer.path}
    assert stages == {"referee-1", "best-1", "best-2", "sample-1"}


def test_the_page_s_microservice_moves_with_its_state_and_states_its_footprint(page) -> None:
    name = f"{page / 'scores.py'}:Best"
    assert service_class(name).memory_mb == 16
    here, there = new_service(name), new_service(name)
    state, moved = here.new_state(), there.new_state()
    here.handle(Request(b"ada 40"), state)
    moved.restore(state.snapshot())
    assert there.handle(Request(b"ada 3"), moved)[0].payload == b"ada 40"
    assert there.key_of(b"ada 3") == there.key_of(b"ada 40") == b"ada"


def test_requests_from_a_file_are_held_against_a_direct_evaluation_if_they_go_one_at_a_time(page) -> None:
    application, name = application_of(str(page / "scores.yaml")), str(page / "scores.yaml")
    requests = requests_of(name, application, page / "scores.txt", sequential=True)
    assert requests.direct and requests.payloads[2] == b"bob 900" and len(requests.payloads) == 6
    several = requests_of(name, application, page / "scores.txt", sequential=False)
    assert not several.direct and "order" in several.checked
    assert requests_of(name, application, None, sequential=False).workload.endswith("scores.py:Games")


def test_the_oracle_follows_the_state_and_tells_wrong_replies_and_errors(page) -> None:
    application = load_application(page / "scores.yaml")
    workload = PayloadWorkload((b"ada 9", b"ada 3", b"ada 900"))
    assert list(islice(workload.requests(), 4)) == [b"ada 9", b"ada 3", b"ada 900", b"ada 9"]
    oracle = Oracle(application)
    assert oracle.complaint(b"ada 9", b"ada 9", False, 0.0) is None
    assert oracle.complaint(b"ada 3", b"ada 9", False, 0.0) is None
    assert "expected b'ada 9'" in str(oracle.complaint(b"ada 3", b"ada 3", False, 0.0))
    error = (DirectRun(application).ask(b"ada 900").error or "").encode()
    assert error and oracle.complaint(b"ada 900", error, True, 0.0) is None
    assert oracle.complaint(b"ada 900", error[:20], True, 0.0) is None  # cut on the wire
    assert oracle.complaint(b"ada 900", b"something else", True, 0.0) is not None
    assert oracle.complaint(b"ada 1", error, True, 0.0) is not None
    assert oracle.complaint(b"ada 900", b"ada 900", False, 0.0) is not None


CLOCK = """
from __future__ import annotations
from dataclasses import dataclass
from microservices.service import Microservice, Output

@dataclass
class Said:
    text: str

class Clock(Microservice):
    name, memory_mb = "clock", 1
    def handle(self, request, state):
        if request.payload == b"burst":
            raise KeyError("burst")
        return (Output(Said(f"{request.now_s:.0f}").text.encode()),)
"""


def _clock(directory: Path, text: str = CLOCK) -> str:
    (directory / "clock.py").write_text(text)
    (directory / "clock.yaml").write_text('name: clock\nnumber: 201\n'
                                          'stages: [{name: c, service: "./clock.py:Clock"}]\n')
    (directory / "lines").write_text("a\nb\n")
    return str(directory / "clock.yaml")


def test_replies_that_depend_on_the_time_are_only_counted_and_it_is_said(tmp_path) -> None:
    name = _clock(tmp_path)
    requests = requests_of(name, application_of(name), tmp_path / "lines", sequential=True)
    assert not requests.direct and "time" in requests.checked
    counted = PayloadWorkload(requests.payloads)
    assert counted.check_reply(b"a", b"17") is None and counted.check_error(b"a", "no") == "no"


def test_a_handler_that_breaks_is_named_before_a_rack_is_built(tmp_path) -> None:
    name = _clock(tmp_path)
    (tmp_path / "lines").write_text("a\nburst\n")
    with pytest.raises(ServiceError, match=r"clock fails on a request of .*lines: KeyError: 'burst'"):
        requests_of(name, application_of(name), tmp_path / "lines", sequential=True)


@pytest.mark.parametrize(("text", "complaint"), [
    ("def broken(:\n", "clock.py does not run: SyntaxError"), ("1 / 0\n", "does not run: ZeroDivisionError"),
    ("raise SystemExit('enough')\n", "clock.py does not run: SystemExit: enough"),
    ("x = 1\n", "no attribute 'Clock'"), ("Clock = 3\n", "not a subclass of Microservice")])
def test_a_file_that_is_no_microservice_is_named(tmp_path, text, complaint) -> None:
    name = _clock(tmp_path, text)
    with pytest.raises(ServiceError, match=complaint):
        DirectRun(application_of(name))


@pytest.mark.parametrize("name", [":", ":Clock", "..clock:Clock", "clock\0.py:Clock", "nowhere:Clock"])
def test_a_name_that_leads_to_no_class_is_named(name) -> None:
    with pytest.raises(ServiceError, match=re.escape(repr(name)) if "\0" not in name else "null byte"):
        service_class(name)
    assert not any("clock\0" in known for known in sys.modules)


def test_a_user_s_module_does_not_replace_one_of_the_same_name(tmp_path) -> None:
    import json
    (tmp_path / "json.py").write_text(CLOCK)
    assert service_class(f"{tmp_path / 'json.py'}:Clock").memory_mb == 1
    import json as again
    assert again is json and json.loads("1") == 1


@pytest.mark.parametrize(("content", "complaint"), [
    (b"", "line 1: a request of 0 bytes"), (b"a\n\nb\n", "line 2: a request of 0 bytes"),
    (b"a\n" + b"x" * 8001, "line 2: a request of 8001 bytes; the limits are 1 and 8000"),
    (b"a\n" * 10_001, "10001 lines; the limit is 10000"), (None, "No such file")])
def test_a_file_of_requests_that_cannot_be_sent_is_refused(page, content, complaint) -> None:
    if content is not None:
        (page / "lines").write_bytes(content)
    application = load_application(page / "scores.yaml")
    with pytest.raises(ExperimentError, match=complaint):
        requests_of(str(page / "scores.yaml"), application, page / "lines", sequential=True)


def test_an_application_without_requests_is_refused_with_what_to_do(page) -> None:
    text = (page / "scores.yaml").read_text()
    (page / "silent.yaml").write_text(text.replace('workload: "./scores.py:Games"', ""))
    application = load_application(page / "silent.yaml")
    with pytest.raises(ExperimentError, match="--payloads"):
        requests_of(str(page / "silent.yaml"), application, None, sequential=True)
    for wrong in ("workload: 7", "workload: Games"):
        (page / "silent.yaml").write_text(text.replace('workload: "./scores.py:Games"', wrong))
        with pytest.raises(ApplicationError, match=r"silent\.yaml: workload is"):
            workload_in(page / "silent.yaml")
