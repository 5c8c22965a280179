"""Which interface the select-group hash gives a flow, by the switches' own programs, in terms of captures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network

from controller.select_hash import FlowKey, predict
from controller.tor_program import EcmpGroup, TorProgram
from experiments.frame_fields import ports_of

# (switch, flow as in frame_fields.Ipv4Fields) -> interface; None where no group of that switch takes the flow.
Predictor = Callable[[str, bytes], str | None]
# switch -> group id -> bucket id -> packets
BucketCounters = Mapping[str, Mapping[int, Mapping[int, int]]]


def group_for(program: TorProgram, address: bytes) -> EcmpGroup | None:
    """Return the group to which `program` routes packed IPv4 `address`; None if it goes to a port, or nowhere."""
    ip = IPv4Address(address)
    networks = [(IPv4Network(route.prefix), route) for route in program.routes]
    matching = [(network.prefixlen, route) for network, route in networks if ip in network]
    if not matching:
        return None
    route = max(matching, key=lambda pair: pair[0])[1]
    return None if route.group is None else program.group(route.group)


def flow_key(flow: bytes) -> FlowKey:
    source, destination = str(IPv4Address(flow[:4])), str(IPv4Address(flow[4:8]))
    if len(flow) == 9:
        return FlowKey(source, destination, flow[8])
    return FlowKey(source, destination, flow[8], *ports_of(flow))


def predictor_of(programs: Mapping[str, TorProgram]) -> Predictor:
    """Return a predictor by `programs`, all of whose buckets are taken as alive."""
    groups: dict[tuple[str, bytes], EcmpGroup | None] = {}

    def predicted(switch: str, flow: bytes) -> str | None:
        program = programs.get(switch)
        if program is None:
            return None
        where = switch, flow[4:8]
        if where not in groups:
            groups[where] = group_for(program, flow[4:8])
        group = groups[where]
        if group is None:
            return None
        bucket_id = predict(group, flow_key(flow))
        port = next(b.port for b in group.buckets if b.bucket_id == bucket_id)
        return program.interface(port)

    return predicted


def counted_by_interface(program: TorProgram, address: bytes, counters: BucketCounters) -> dict[str, int] | None:
    """Return the packets that the buckets of `address`'s group counted, by interface; None if they are not given."""
    group = group_for(program, address)
    if group is None or group.group_id not in counters.get(program.switch, {}):
        return None
    counted = counters[program.switch][group.group_id]
    return {program.interface(b.port): counted.get(b.bucket_id, 0) for b in group.buckets}
