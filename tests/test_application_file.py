"""A user's own application and microservice, from files of theirs."""

import pytest

from microservices.application_file import load_application
from microservices.applications import nfv_fin
from microservices.direct import DirectRun
from microservices.errors import ApplicationError
from microservices.records import Record, decode_record, encode_record

MINE = """
from microservices.records import RecordService
from microservices.reliable import Hashtable
from microservices.state import State

class Highest(RecordService):
    name, memory_mb, stateful = "highest", 4, True

    def new_state(self):
        return State(hashtables={"highest": Hashtable(str, float)})

    def answer(self, record, state, now_s):
        table = state.hashtables["highest"]
        table[record.key] = max(record.results["ema"], table.get(record.key, float("-inf")))
        return table[record.key]
"""
GOOD = """
name: highest-average
number: 200
stages:
  - {name: smooth, service: ema, shards: 2, options: {alpha: 0.5}}
  - {name: mine, service: "./mine.py:Highest", shards: 2, backups: 1}
  - {name: log, service: count, shards: 1}
channels:
  - {source: smooth, target: mine, aligned: true}
  - {source: smooth, target: log, answers: false, trigger: {name: rare, share: 0.1, seed: 3}}
"""


def test_an_application_in_yaml_runs_with_a_microservice_beside_it(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "app.yaml").write_text(GOOD)
    application = load_application(tmp_path / "app.yaml")
    assert len(application.instances) == 2 + 4 + 1
    run, results = DirectRun(application), []
    for value in (10.0, 20.0, 0.0):
        results.append(decode_record(run.ask(encode_record(Record("k", values=(value,)))).payload).results)
    assert results == [{"ema": 10.0, "highest": 10.0}, {"ema": 15.0, "highest": 15.0}, {"ema": 7.5, "highest": 15.0}]


def test_an_application_in_python_is_what_the_file_defines(tmp_path) -> None:
    (tmp_path / "app.py").write_text("from microservices.applications import nfv_fin\napplication = nfv_fin(3)\n")
    assert load_application(tmp_path / "app.py") == nfv_fin(3)


@pytest.mark.parametrize(("change", "complaint"), [
    (("number: 200", "number: two"), "number is 'two'; it is int"),
    (("number: 200", ""), "lacks number"),
    (("number: 200", "number: true"), "number is True"),
    (("shards: 2", "shard: 2"), "unknown 'shard'; known: name, service, shards"),
    (("shards: 2", "shards: 0"), "limits are 1 and 256"),
    (("service: ema", "service: emu"), "unknown microservice 'emu'"),
    (("service: ema", "service: 7"), "service is 7; it is str"),
    (("target: mine", "target: yours"), "no stage 'yours'"),
    (("share: 0.1", "share: 2"), "limits are 0 and 1"),
    (("share: 0.1, ", ""), "lacks share"),
    (("name: rare", "nam: rare"), "unknown 'nam'"),
    (("stages:", "stages: none\nstages2:"), "unknown 'stages2'"),
    (("answers: false", "answers: no thanks"), "answers is 'no thanks'; it is bool"),
    (("number: 200", "number: [200"), r"app\.yaml"),
])
def test_what_is_wrong_in_a_file_is_named(tmp_path, change, complaint) -> None:
    assert change[0] in GOOD
    (tmp_path / "app.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(ApplicationError, match=complaint):
        load_application(tmp_path / "app.yaml")


@pytest.mark.parametrize("text", ["", "- a list", "just words", "\x00", "number: 2026-13-45", "number: " + "9" * 5000,
                                  "name: " + "[" * 5000])
def test_a_file_that_is_no_map_is_refused(tmp_path, text) -> None:
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(ApplicationError, match=r"app\.yaml"):
        load_application(tmp_path / "app.yaml")


def test_a_file_that_is_missing_or_defines_nothing_is_refused(tmp_path) -> None:
    with pytest.raises(ApplicationError, match="No such file"):
        load_application(tmp_path / "none.yaml")
    (tmp_path / "app.py").write_text("x = 1\n")
    with pytest.raises(ApplicationError, match="not an Application"):
        load_application(tmp_path / "app.py")
