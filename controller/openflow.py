"""TorProgram's rules and groups <-> OpenFlow 1.5 messages.

A `datapath` is a connected switch or `OpenFlowLibrary.protocol()`; both know which library writes the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Any

from controller.errors import ProgramError
from controller.tor_program import Bucket, EcmpGroup
from controller.tor_rules import (
    Action,
    Changes,
    CopyField,
    DecTtl,
    Installed,
    Output,
    OutputBack,
    Rule,
    SetField,
    SetTtl,
    ToGroup,
)

# The hash that a select group chooses by is no part of OpenFlow: Netronome's experimenter property
# (Open vSwitch, Documentation/group-selection-method-property.txt) names it.
NETRONOME = 0x154D
SELECTION_METHOD_TYPE = 1
EXPERIMENTER = 0xFFFF
HASH_FIELDS = (("ipv4_src", 4), ("ipv4_dst", 4), ("tcp_src", 2), ("tcp_dst", 2), ("udp_src", 2), ("udp_dst", 2))
_OXM_NUMBER = {"ipv4_src": 11, "ipv4_dst": 12, "tcp_src": 13, "tcp_dst": 14, "udp_src": 15, "udp_dst": 16}
_OXM_OPENFLOW_BASIC = 0x8000
_METHOD_NAME_BYTES = 16

# Open vSwitch's own command: write the group whether or not there is one.
ADD_OR_MODIFY = 0x8000


def change_messages(datapath: Any, changes: Changes) -> list[Any]:
    """Return `changes` as messages, a barrier after each kind; none for no changes.

    Raises ProgramError for a rule that OpenFlow 1.5 cannot say.
    """
    phases = [
        [_checked(_group_mod(datapath, group), group.name) for group in (*changes.groups_added,
                                                                         *changes.groups_changed)],
        [_checked(_flow_add(datapath, rule), rule.name) for rule in changes.rules_added],
        [_flow_delete(datapath, table, cookie) for table, cookie in changes.rules_deleted],
        [_group_delete(datapath, group_id) for group_id in changes.groups_deleted],
    ]
    messages: list[Any] = []
    for phase in phases:
        if phase:
            messages += [*phase, datapath.ofproto_parser.OFPBarrierRequest(datapath)]
    return messages


def read_requests(datapath: Any) -> tuple[Any, Any]:
    """Return the two questions that tell what a switch has: all rules, all groups."""
    of, parser = datapath.ofproto, datapath.ofproto_parser
    return (parser.OFPFlowDescStatsRequest(datapath, 0, of.OFPTT_ALL, of.OFPP_ANY, of.OFPG_ANY),
            parser.OFPGroupDescStatsRequest(datapath, 0, of.OFPG_ALL))


def port_request(datapath: Any) -> Any:
    """Return the question how a switch's ports are."""
    return datapath.ofproto_parser.OFPPortDescStatsRequest(datapath, 0, datapath.ofproto.OFPP_ANY)


def is_up(datapath: Any, port: Any) -> bool:
    """Return whether a port, as the switch describes it, is set up and has carrier."""
    of = datapath.ofproto
    return not port.config & of.OFPPC_PORT_DOWN and not port.state & of.OFPPS_LINK_DOWN


def installed(rule_descriptions: Iterable[Any], group_descriptions: Iterable[Any]) -> Installed:
    """Return what a switch has, from the bodies of its replies to `read_requests`."""
    return Installed(frozenset((d.table_id, d.cookie) for d in rule_descriptions),
                     tuple((d.group_id, _group_read(d)) for d in group_descriptions))


def _checked(message: Any, name: str) -> Any:
    """Return `message` once it has been seen to fit its fields; the library looks only when it writes."""
    try:
        message.serialize()
    except Exception as error:  # of many kinds: it checks with assertions, struct, netaddr and dictionaries
        raise ProgramError(f"{name!r} does not go into OpenFlow: {error!r}") from error
    message.xid = None  # numbered when it is sent
    return message


def _flow_add(datapath: Any, rule: Rule) -> Any:
    of, parser = datapath.ofproto, datapath.ofproto_parser
    instructions = []
    if rule.actions:
        actions = [_action(datapath, action) for action in rule.actions]
        instructions.append(parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, actions))
    if rule.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(rule.goto))
    # Left to itself the library sorts by field number, which puts nw_ttl before the eth_type that it needs.
    match = parser.OFPMatch(_ordered_fields=[(name, _oxm_value(value)) for name, value in rule.match])
    return parser.OFPFlowMod(datapath, cookie=rule.cookie, table_id=rule.table, command=of.OFPFC_ADD,
                             priority=rule.priority, out_port=of.OFPP_ANY, out_group=of.OFPG_ANY,
                             match=match, instructions=instructions)


def _flow_delete(datapath: Any, table: int, cookie: int) -> Any:
    of, parser = datapath.ofproto, datapath.ofproto_parser
    return parser.OFPFlowMod(datapath, cookie=cookie, cookie_mask=0xFFFFFFFFFFFFFFFF, table_id=table,
                             command=of.OFPFC_DELETE, out_port=of.OFPP_ANY, out_group=of.OFPG_ANY)


def _oxm_value(value: int | str) -> Any:
    if isinstance(value, str) and "/" in value:
        network = IPv4Network(value)
        return str(network.network_address) if network.prefixlen == 32 else (str(network.network_address),
                                                                             str(network.netmask))
    return value


def _action(datapath: Any, action: Action) -> Any:
    of, parser = datapath.ofproto, datapath.ofproto_parser
    if isinstance(action, SetField):
        return parser.OFPActionSetField(**{action.field: action.value})
    if isinstance(action, CopyField):
        return parser.OFPActionCopyField(action.bits, 0, 0, [parser.OFPOxmId(action.source),
                                                            parser.OFPOxmId(action.destination)])
    if isinstance(action, DecTtl):
        return parser.OFPActionDecNwTtl()
    if isinstance(action, SetTtl):
        return parser.OFPActionSetNwTtl(action.ttl)
    if isinstance(action, Output):
        return parser.OFPActionOutput(action.port, 0)
    if isinstance(action, OutputBack):
        return parser.OFPActionOutput(of.OFPP_IN_PORT, 0)
    if isinstance(action, ToGroup):
        return parser.OFPActionGroup(action.group_id)
    raise ProgramError(f"action {action!r} has no OpenFlow form")


def _group_mod(datapath: Any, group: EcmpGroup) -> Any:
    of, parser = datapath.ofproto, datapath.ofproto_parser
    buckets = [
        parser.OFPBucket(
            bucket_id=b.bucket_id,
            actions=[parser.OFPActionSetField(eth_dst=b.eth_dst), parser.OFPActionOutput(b.port, 0)],
            properties=[parser.OFPGroupBucketPropWeight(of.OFPGBPT_WEIGHT, 8, b.weight),
                        parser.OFPGroupBucketPropWatch(of.OFPGBPT_WATCH_PORT, 8, b.watch_port)])
        for b in group.buckets
    ]
    method = parser.OFPGroupPropExperimenter(EXPERIMENTER, None, NETRONOME, SELECTION_METHOD_TYPE,
                                             _selection_words(group.hash_parameter))
    return parser.OFPGroupMod(datapath, ADD_OR_MODIFY, of.OFPGT_SELECT, group.group_id,
                              of.OFPG_BUCKET_ALL, buckets, [method])


def _group_delete(datapath: Any, group_id: int) -> Any:
    of, parser = datapath.ofproto, datapath.ofproto_parser
    return parser.OFPGroupMod(datapath, of.OFPGC_DELETE, of.OFPGT_SELECT, group_id)


def _selection_words(hash_parameter: int) -> list[int]:
    """Return the property's content as the 32-bit words that the library wants."""
    fields = b"".join(struct.pack(f"!HBB{size}s", _OXM_OPENFLOW_BASIC, _OXM_NUMBER[name] << 1, size, b"\xFF" * size)
                      for name, size in HASH_FIELDS)
    data = struct.pack(f"!4x{_METHOD_NAME_BYTES}sQ", b"hash", hash_parameter) + fields
    data += bytes(-len(data) % 4)
    return [word for (word,) in struct.iter_unpack("!I", data)]


def _group_read(description: Any) -> EcmpGroup | None:
    """Return the group that `description` tells of, or None if it is not one that `_group_mod` writes."""
    methods = [p for p in description.properties if getattr(p, "experimenter", None) == NETRONOME]
    if len(methods) != 1 or len(description.properties) != 1:
        return None
    words = list(methods[0].data)
    if len(words) < 7:
        return None
    hash_parameter = words[5] << 32 | words[6]
    if words != _selection_words(hash_parameter):
        return None
    buckets = [_bucket_read(b) for b in description.buckets]
    try:
        return EcmpGroup(description.group_id, f"group {description.group_id}", hash_parameter,
                         tuple(b for b in buckets if b is not None)) if None not in buckets else None
    except ProgramError:
        return None


def _bucket_read(bucket: Any) -> Bucket | None:
    properties = {type(p).__name__: p for p in bucket.properties}
    watch = properties.pop("OFPGroupBucketPropWatch", None)
    weight = properties.pop("OFPGroupBucketPropWeight", None)
    actions = [type(a).__name__ for a in bucket.actions]
    if watch is None or properties or actions != ["OFPActionSetField", "OFPActionOutput"]:
        return None
    rewrite, output = bucket.actions
    if rewrite.key != "eth_dst":
        return None
    return Bucket(bucket.bucket_id, output.port, watch.watch, rewrite.value, 1 if weight is None else weight.weight)
