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


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[Callable[[asked.Request], bytes]], ControllerClient]]:
    """Return what makes a client of somebody that answers each request so."""
    sockets, threads = [], []

    def make(answer: Callable[[asked.Request], bytes]) -> ControllerClient:
        served = listen(tmp_path / asked.SOCKET_NAME)
        served.setblocking(True)
        served.settimeout(0.2)
        sockets.append(served)

        def serve() -> None:
            try:
                while True:
                    data, who = served.recvfrom(1 << 20)
                    served.sendto(answer(decode_request(data)), who)
            except OSError:
                return

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ControllerClient(tmp_path, timeout_s=2.0)

    yield make
    for one in threads:
        one.join()
    for one in sockets:
        one.close()


Answering = Callable[[Callable[[asked.Request], bytes]], ControllerClient]


def test_a_state_comes_back_as_it_was(answering: Answering) -> None:
    room = Room()
    room.beat("s1n1")
    room.pass_time(0.1)
    state = room.controller.state(room.now)
    assert answering(lambda request: encode_reply(state)).state() == state


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


@pytest.mark.parametrize("data", [b"", b"\xc0", msgspec.msgpack.encode({"type": "Nonsense"}),
                                  msgspec.msgpack.encode({"type": "Move", "instance": 3, "node": ""})])
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_request(data)
