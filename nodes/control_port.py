"""What a node of either kind answers on its control port. No sockets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from microservices.errors import ServiceError
from nodes import messages
from nodes.deployment import Deployment
from nodes.errors import NodeError, WireError
from nodes.node_control import Controls, NodeControl, ToNodeControl
from nodes.node_report import packed
from nodes.service_runtime import Counters, ServiceRuntime
from topologies.addressing import is_controller
from topologies.unreadable import UNREADABLE

MAX_REASON_BYTES = 400


def earlier(one: float | None, other: float) -> float:
    return other if one is None or other < one else one


def counters_of(control: NodeControl | None) -> Counters:
    return control.counters() if control is not None else {}


def control_answer(payload: bytes, source: bytes, counters: Callable[[], Counters],
                    services: ServiceRuntime, control: NodeControl | None, now: float,
                    told: Controls) -> bytes | None:
    """Answer a question for counters from any node that may ask, and a deployment from a controller; None: refused.

    What belongs to the orchestrator is `control`'s, which appends to `told` what it says and to whom.
    The ToR lets no false source address in, so `source` can be believed.
    """
    try:
        message = messages.decode(payload)
    except WireError:
        return None
    if isinstance(message, ToNodeControl):
        if control is None:
            return None
        control.receive(source, message, now, told)
        return b""
    if not isinstance(message, messages.StatsMessage):
        return None
    if message.kind == messages.KIND_STATS_QUERY:
        return messages.StatsMessage(messages.KIND_STATS_REPORT, message.query_id, packed(counters())).encode()
    if message.kind == messages.KIND_DEPLOY and is_controller(source):
        why = b""
        try:
            deployment = msgspec.msgpack.decode(message.payload, type=Deployment)
            services.deploy(deployment) if control is None else control.deploy(deployment, now)
        except (NodeError, ServiceError, *UNREADABLE) as error:
            why = str(error).encode()[:MAX_REASON_BYTES]
        return messages.StatsMessage(messages.KIND_DEPLOYED, message.query_id, why).encode()
    return None
