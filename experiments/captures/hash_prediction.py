"""Which interface the select-group hash gives a flow, by the switches' own programs, in terms of captures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv4Network

from controller.select_hash import FlowKey, predict
from controller.tor_program import EcmpGroup, TorProgram
from experiments.captures.frame_fields import ports_of

# (switch, flow as in frame_fields.Ipv4Fields) -> interface; None where no live port of a group takes the flow.
Predictor = Callable[[str, bytes], str | None]
# switch -> group name -> interface -> packets that the bucket of that interface counted
BucketCounters = Mapping[str, Mapping[str, Mapping[str, int]]]


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


def predictor_of(programs: Mapping[str, TorProgram], dead: Collection[str] = ()) -> Predictor:
    """Return a predictor by `programs`; the buckets of all interfaces but those in `dead` are taken as alive."""
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
        interface_of = {b.bucket_id: program.interface(b.port) for b in group.buckets}
        live = [b for b, interface in interface_of.items() if interface not in dead]
        bucket_id = predict(group, flow_key(flow), live)
        return None if bucket_id is None else interface_of[bucket_id]

    return predicted


def counted_by_interface(program: TorProgram, address: bytes, counters: BucketCounters) -> Mapping[str, int] | None:
    """Return the packets that the buckets of `address`'s group counted, by interface; None if they are not given."""
    group = group_for(program, address)
    return None if group is None else counters.get(program.switch, {}).get(group.name)
