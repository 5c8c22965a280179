"""The application of docs/microservices.md on a real rack: copied from the page, run by the demo."""

from pathlib import Path

import msgspec
import pytest
from demos import demo_without_drops, why
from docs_page import write_files

from experiments.demo import DemoOptions, run_demo


def test_the_page_s_application_answers_every_request_of_a_file_as_a_direct_evaluation_does(tmp_path: Path) -> None:
    write_files(tmp_path)
    result = demo_without_drops(DemoOptions("type1x2", requests=606, app=str(tmp_path / "scores.yaml"),
                                  payloads=str(tmp_path / "scores.txt")))
    assert result.holds, why(result)
    assert "direct evaluation" in result.checked
    assert result.total("answered") == 606
    assert set(result.placement) == {"referee-1", "best-1", "best-2", "sample-1"}
    # bob 900 and the nonsense are refused, as the direct evaluation refuses them.
    assert "202 answered by an error" in msgspec.json.encode(result.proof.rows()).decode()


def test_with_a_client_on_each_of_two_racks_replies_to_a_file_are_only_counted(tmp_path: Path) -> None:
    """Each client sends the file's requests by itself, so nobody knows in which order they come to the shared state."""
    write_files(tmp_path)
    (tmp_path / "answered.txt").write_text("Ada 12\nada 7\nBob 40\n")  # an error reply would count against the run
    result = demo_without_drops(DemoOptions("type1x1/2", requests=120, app=str(tmp_path / "scores.yaml"),
                                            payloads=str(tmp_path / "answered.txt")))
    assert result.holds, why(result)
    assert len(result.clients) == 2 and "only that there is one reply" in result.checked


@pytest.mark.parametrize("file", ["scores.yaml", "scores_app.py"])
def test_the_page_s_workload_finds_every_reply_right(tmp_path: Path, file: str) -> None:
    write_files(tmp_path)
    result = demo_without_drops(DemoOptions("type1x2", requests=500, clients=2, app=str(tmp_path / file)))
    assert result.holds, why(result)


def test_a_microservice_that_answers_wrongly_is_found_out(tmp_path: Path) -> None:
    """One that counts a point too many where it runs as an agent, which the client's direct evaluation does not."""
    write_files(tmp_path)
    text = (tmp_path / "scores.py").read_text()
    wrong = text.replace("import Random\n", "import Random\nimport threading\n").replace(
        "max(int(score), table.get(player, 0))", "max(int(score), table.get(player, 0)) + _on_a_host_or_smartnic()")
    wrong += ('\n\ndef _on_a_host_or_smartnic():\n'
              '    name = open("/proc/self/comm").read()\n'
              '    return int(name.startswith(("e3-s1", "e3-s2")))\n')
    (tmp_path / "scores.py").write_text(wrong)
    result = run_demo(DemoOptions("type1x2", requests=60, app=str(tmp_path / "scores.yaml"),
                                  payloads=str(tmp_path / "scores.txt")))
    assert not result.holds
    assert result.total("wrong") == 40 and result.total("answered") == 20


@pytest.mark.parametrize("name", ["nfv-fin", "rta-shm", "iot-ts"])  # all eight: rack-applications
def test_an_application_of_each_family_of_table_3_holds_on_a_rack(name: str) -> None:
    result = demo_without_drops(DemoOptions("type1x3", requests=400, app=name))
    assert result.holds, why(result)
