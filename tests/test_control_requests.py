"""What an operator asks a controller and is answered, over a real Unix socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from controller_room import DEPLOYMENT, Room

from controller import control_requests as asked
from controller.control_client import ControllerClient
from controller.control_requests import decode_request, encode_reply, listen
from controller.controller_events import ControllerEvent
from controller.errors import MigrationError

Answer = Callable[[asked.Request], bytes]
Answering = Callable[..., ControllerClient]  # of an Answer, and perhaps the name of its socket
ONE, TWO, THREE = (asked.ONE_OF_SEVERAL.format(f"ctl{n}") for n in (1, 2, 3))


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Return what makes a client of somebody that answers each request so."""
    sockets, threads, done = [], [], threading.Event()

    def make(answer: Answer, name: str = asked.SOCKET_NAME) -> ControllerClient:
        served = listen(tmp_path / name)
        served.setblocking(True)
        served.settimeout(0.05)
        sockets.append(served)

        def serve() -> None:
            while not done.is_set():
                try:
                    data, who = served.recvfrom(1 << 20)
                except TimeoutError:
                    continue
                served.sendto(answer(decode_request(data)), who)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ControllerClient(tmp_path, timeout_s=2.0)

    yield make
    done.set()
    for one in threads:
        one.join()
    for one in sockets:
        one.close()


def test_a_state_comes_back_as_it_was(answering: Answering) -> None:
    room = Room()
    room.beat("s1n1")
    room.pass_time(0.1)
    state = room.controller.state(room.now)
    assert answering(lambda request: encode_reply(state)).state() == state


def test_what_is_deployed_and_how_a_withdrawal_stands_comes_back_as_it_was(answering: Answering) -> None:
    controller, requests = Room().controller, list[asked.Request]()

    def answer(request: asked.Request) -> bytes:
        requests.append(request)
        if isinstance(request, asked.AskDeployments):
            return encode_reply(tuple(controller.deployments.values()))
        if isinstance(request, asked.AskFirstEpoch):
            return encode_reply(controller.first_epoch(request.application))
        assert isinstance(request, asked.Withdraw)
        return encode_reply(controller.withdraw(request.application, 1.0, []))

    client = answering(answer)
    assert client.deployments() == (DEPLOYMENT,) and client.first_epoch(DEPLOYMENT.number) == 1
    state = client.withdraw(DEPLOYMENT.name)
    assert (state.name, state.state, state.owed) == (DEPLOYMENT.name, "closing", ())
    assert requests == [asked.AskDeployments(), asked.AskFirstEpoch(DEPLOYMENT.number), asked.Withdraw(DEPLOYMENT.name)]


def test_events_come_page_by_page_till_there_are_no_more(answering: Answering) -> None:
    all_events = [ControllerEvent(i, i / 10, "verdict") for i in range(1, 2 * asked.MOST_AT_ONCE + 8)]
    requests: list[asked.Request] = []

    def answer(request: asked.Request) -> bytes:
        requests.append(request)
        assert isinstance(request, asked.AskEvents)
        return encode_reply([e for e in all_events if e.sequence > request.after][:asked.MOST_AT_ONCE])

    assert list(answering(answer).events()) == all_events and len(requests) == 4


def test_a_complaint_is_raised_with_its_words(answering: Answering) -> None:
    client = answering(lambda request: encode_reply(error="s1n1 has 3 MB free"))
    with pytest.raises(MigrationError, match="3 MB free"):
        client.move("nfv-fin/ipsec-1", "s1n1")


def test_a_deployment_arrives_whole(answering: Answering) -> None:
    found: list[asked.Request] = []
    answering(lambda request: bool(found.append(request)) or encode_reply()).deployed(DEPLOYMENT)
    assert found == [asked.Deployed(DEPLOYMENT)]


def test_where_nobody_answers_that_is_said_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="is the orchestrator off"):
        ControllerClient(tmp_path).state()
    deaf = listen(tmp_path / asked.SOCKET_NAME)
    with pytest.raises(MigrationError, match=r"within 0\.1 s"):
        ControllerClient(tmp_path, 0.1).state()
    deaf.close()
    with pytest.raises(MigrationError, match="is the orchestrator off"):
        ControllerClient(tmp_path).state()
    assert [path.name for path in tmp_path.iterdir()] == [asked.SOCKET_NAME]


def test_of_several_nodes_the_one_that_decides_is_found_and_what_is_to_be_done_is_asked_for_once(
        answering: Answering) -> None:
    heard: list[str] = []

    def follows(name: str) -> Answer:
        return lambda _: (heard.append(name) or b"") + encode_reply(error="no", follows=True, leader="ctl3")

    def decides(request: asked.Request) -> bytes:
        heard.append("ctl3")
        return encode_reply(7)

    answering(follows("ctl1"), ONE)
    answering(follows("ctl2"), TWO)
    client = answering(decides, THREE)
    assert client.move("nfv-fin/ipsec-1", "s1n1") == 7 and heard.count("ctl3") == 1
    assert client.move("nfv-fin/ipsec-1", "s1n1") == 7
    assert heard[-1] == "ctl3" and heard.count("ctl3") == 2 and len(heard) <= 4  # at once, the second time


def test_a_question_to_a_node_that_does_not_answer_is_asked_of_another(
        answering: Answering, tmp_path: Path) -> None:
    deaf = listen(tmp_path / ONE)
    listen(tmp_path / TWO).close()  # it is dead
    assert answering(lambda _: encode_reply([]), THREE).places() == []
    deaf.close()


def test_while_no_node_decides_a_client_waits_and_then_says_so(answering: Answering) -> None:
    answering(lambda _: encode_reply(error="no", follows=True), ONE)
    client = answering(lambda _: encode_reply(error="no", follows=True), TWO)
    with pytest.raises(MigrationError, match="none of 2 controller nodes decides"):
        client.places()


def test_every_node_says_of_itself_whether_it_decides(answering: Answering) -> None:
    for name, node, decides in ((ONE, "ctl1", False), (TWO, "ctl2", True)):
        role = asked.Role(node, decides, "ctl2")
        client = answering(lambda _, role=role: encode_reply(role, follows=not role.decides, leader="ctl2"), name)
    assert client.roles() == {"ctl1": asked.Role("ctl1", False, "ctl2"), "ctl2": asked.Role("ctl2", True, "ctl2")}
    assert client.leader() == "ctl2"


@pytest.mark.parametrize("data", [b"", b"\xc0", msgspec.msgpack.encode({"type": "Nonsense"}),
                                  msgspec.msgpack.encode({"type": "Move", "instance": 3, "node": ""})])
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_request(data)
