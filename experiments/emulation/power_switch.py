"""The power switch of the machine room: it cuts a node off for good when the resource controller asks for that.

    controller --"s2h"--> power.sock    its agent is killed: nothing reaches it any more, and it reaches nothing
    controller <--Fenced-- power switch

A management network with switched outlets, as data centers have it ("shoot the other node in the head"). It works on
nodes that hang, and on those that only the controller cannot hear.
"""

from __future__ import annotations

import logging
import os
import select
import signal
from pathlib import Path

from controller.control_client import ControllerClient
from controller.control_requests import POWER_SOCKET_NAME, listen
from controller.errors import MigrationError
from experiments.emulation.node_setup import pid_file
from nodes.nursery import Order, process_name

GONE_WITHIN_S = 5.0
log = logging.getLogger(__name__)


def power_order(pid: int, run_dir: Path) -> Order:
    """Return the order for the power switch, in the namespace of the process `pid`."""
    return Order("power-switch", "experiments.emulation.power_switch:run", str(run_dir).encode(), pid,
                 str(run_dir / "power-switch.log"))


def run(config: bytes) -> None:
    """Be the power switch till SIGTERM; `config` is the path of the run directory."""
    run_dir = Path(config.decode())
    asked = listen(run_dir / POWER_SOCKET_NAME)
    asked.setblocking(True)
    controller = ControllerClient(run_dir)
    while True:
        node = asked.recv(64).decode(errors="replace")
        if not cut_off(run_dir, node):
            continue
        try:
            stranded = controller.fenced(node)
            log.info("%s is off%s", node, f"; no place for {', '.join(stranded)}" if stranded else "")
        except MigrationError as error:  # it is away, and asks again when it is back
            log.warning("%s is off; %s", node, error)


def cut_off(run_dir: Path, node: str) -> bool:
    """End the agent of `node`; return whether it is certain that none runs. Another process is left alone."""
    try:
        pid = int((run_dir / pid_file(node)).read_bytes())
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False  # no such node, or its agent is being started
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != process_name(node):
            return True  # the agent has ended, and its number is another's
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(select.select([descriptor], [], [], GONE_WITHIN_S)[0])
    except (FileNotFoundError, ProcessLookupError):
        return True
    finally:
        os.close(descriptor)
