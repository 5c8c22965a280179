"""The NIDS's rules: a small language after Snort's, and a set of our own in it.

One rule a line; "#" starts a comment line:

    alert|drop  tcp|udp|icmp|ip  any|PORTS  ...  written as Snort writes it:
    alert tcp any any -> any 80 (msg:"what it is"; content:"bytes as text or |68 65 78|"; nocase; sid:1001;)

A rule matches a packet when the protocol and both port lists fit and all its contents occur in the transport payload,
anywhere and in any order. Addresses are `any` only. PORTS is any, a number, LOW:HIGH (either end may be missing),
or [a list of these]. `nocase` belongs to the content before it. Inside a content, \\ makes the next
character literal. Everything else of Snort's language is refused, not ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from microservices.errors import ServiceError
from microservices.packet import ICMP, TCP, UDP

ACTIONS = ("alert", "drop")
PROTOCOLS = {"ip": None, "icmp": ICMP, "tcp": TCP, "udp": UDP}
MIN_CONTENT_BYTES = 3  # shorter contents match random bytes all the time


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to look for; with `nocase`, ASCII letters match in either case."""

    pattern: bytes
    nocase: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Ports are inclusive ranges; no range at all means any port."""

    action: str
    protocol: int | None
    source_ports: tuple[tuple[int, int], ...]
    destination_ports: tuple[tuple[int, int], ...]
    contents: tuple[Content, ...]
    sid: int
    message: str

    def fits(self, protocol: int, source_port: int, destination_port: int) -> bool:
        """Say whether a packet of this protocol and these ports is one that the rule looks into."""
        return (self.protocol in (None, protocol) and _within(self.source_ports, source_port)
                and _within(self.destination_ports, destination_port))


_HEADER = re.compile(r"(\w+)\s+(\w+)\s+(\S+)\s+(\S+)\s+->\s+(\S+)\s+(\S+)\s*\((.*)\)\s*")
_OPTION = re.compile(r'\s*(\w+)\s*(?::\s*("(?:[^"\\]|\\.)*"|[^;"]*))?\s*;')
_LITERAL_OR_HEX = re.compile(rb"\\(.)|\|([0-9A-Fa-f\s]*)\||([^|\\])", re.DOTALL)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Read rules; raises ServiceError with the line's number on the first that cannot be honoured."""
    rules: list[Rule] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            try:
                rules.append(_rule(line))
            except ServiceError as error:
                raise ServiceError(f"rule line {number}: {error}") from None
    sids = [rule.sid for rule in rules]
    if len(set(sids)) != len(sids):
        raise ServiceError(f"sid {next(sid for sid in sids if sids.count(sid) > 1)} stands in more than one rule")
    return tuple(rules)


def _rule(line: str) -> Rule:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise ServiceError(f"{line!r} is not ACTION PROTOCOL any PORT -> any PORT (OPTIONS)")
    action, protocol, source, source_ports, destination, destination_ports, body = match.groups()
    if action not in ACTIONS:
        raise ServiceError(f"action {action!r}; known: {', '.join(ACTIONS)}")
    if protocol not in PROTOCOLS:
        raise ServiceError(f"protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    if source != "any" or destination != "any":
        raise ServiceError(f"addresses {source} -> {destination}; only any is known")
    contents: list[Content] = []
    sid, message, position = 0, "", 0
    while body[position:].strip():
        option = _OPTION.match(body, position)
        if option is None:
            raise ServiceError(f"options at {body[position:]!r}; each is NAME; or NAME:VALUE;")
        position = option.end()
        name, value = option[1], option[2]
        if name == "content" and value:
            contents.append(Content(_content(value)))
        elif name == "nocase" and value is None and contents:
            contents[-1] = Content(contents[-1].pattern.lower(), nocase=True)
        elif name == "sid" and value and re.fullmatch("[0-9]{1,10}", value) and 0 < int(value) < 2**32:
            sid = int(value)
        elif name == "msg" and value and value.startswith('"'):
            message = re.sub(r"\\(.)", r"\1", value[1:-1])
        else:
            raise ServiceError(f"option {option[0].strip()!r}; known: content, nocase after it, sid, msg")
    if not contents or not sid:
        raise ServiceError("a rule has at least one content and a sid")
    return Rule(action, PROTOCOLS[protocol], _ports(source_ports), _ports(destination_ports), tuple(contents), sid,
                message)


def _content(quoted: str) -> bytes:
    if not (len(quoted) >= 2 and quoted[0] == quoted[-1] == '"' and quoted.isascii()):
        raise ServiceError(f"content {quoted}; it is quoted ASCII, other bytes as |hex|")
    raw = quoted[1:-1].encode()
    pattern, position = bytearray(), 0
    while position < len(raw):
        piece = _LITERAL_OR_HEX.match(raw, position)
        if piece is None:
            raise ServiceError(f"content {quoted}: odd | or \\ at byte {position}")
        position = piece.end()
        literal, hexadecimal, plain = piece.groups()
        try:
            pattern += bytes.fromhex(hexadecimal.decode()) if hexadecimal is not None else literal or plain
        except ValueError as error:
            raise ServiceError(f"content {quoted}: {error}") from None
    if len(pattern) < MIN_CONTENT_BYTES:
        raise ServiceError(f"content {quoted} is {len(pattern)} bytes; the least is {MIN_CONTENT_BYTES}")
    return bytes(pattern)


def _ports(text: str) -> tuple[tuple[int, int], ...]:
    if text == "any":
        return ()
    ranges = []
    for part in text.removeprefix("[").removesuffix("]").split(","):
        low, colon, high = part.partition(":")
        bounds = [b or default for b, default in ((low, "0"), (high, "65535"))] if colon else [low, low]
        if part == ":" or not all(b.isascii() and b.isdigit() and int(b[:6]) <= 65535 for b in bounds):
            raise ServiceError(f"port {part!r}; it is any, a number up to 65535, LOW:HIGH or a [list]")
        ranges.append((int(bounds[0]), int(bounds[1])))
        if ranges[-1][0] > ranges[-1][1]:
            raise ServiceError(f"ports {part!r}: the low end is above the high one")
    return tuple(ranges)


def _within(ranges: tuple[tuple[int, int], ...], port: int) -> bool:
    return not ranges or any(low <= port <= high for low, high in ranges)


# Ours, written for this project: they look like what such rules look for, and every content is long enough that
# random bytes do not hit it.
BUILT_IN_RULES = r"""
drop  tcp any any -> any [80,8080]    (msg:"path traversal to a password file"; content:"../../etc/passwd"; sid:1001;)
drop  tcp any any -> any [80,8080]    (msg:"SQL injection, union"; content:"union select"; nocase; sid:1002;)
drop  tcp any any -> any [80,8080]    (msg:"SQL injection, tautology"; content:"' or '1'='1"; nocase; sid:1003;)
alert tcp any any -> any [80,8080]    (msg:"script in a request"; content:"<script"; nocase; content:"</script"; nocase; sid:1004;)
drop  tcp any any -> any [80,8080]    (msg:"lookup injection in a header"; content:"${jndi:"; nocase; sid:1005;)
drop  tcp any any -> any [80,8080]    (msg:"shell shock"; content:"() { :|3B| }|3B|"; sid:1006;)
alert tcp any any -> any 80           (msg:"scanner's user agent"; content:"User-Agent: masscan"; nocase; sid:1007;)
alert tcp any any -> any 21           (msg:"FTP root login"; content:"USER root"; nocase; sid:1008;)
alert tcp any any -> any 23           (msg:"factory telnet password"; content:"root:xc3511"; sid:1009;)
drop  tcp any any -> any 445          (msg:"SMB1 negotiation"; content:"|FF|SMBr|00 00 00 00|"; sid:1010;)
alert tcp any any -> any 25           (msg:"executable attachment"; content:"filename="; nocase; content:".exe|22|"; nocase; sid:1011;)
drop  ip  any any -> any any          (msg:"x86 no-op sled"; content:"|90 90 90 90 90 90 90 90 90 90 90 90|"; sid:1012;)
drop  ip  any any -> any any          (msg:"shell path in a payload"; content:"/bin/sh|00|"; sid:1013;)
alert udp any any -> any 53           (msg:"DNS any query for amplification"; content:"|00 00 FF 00 01|"; content:"|03|isc|03|org"; nocase; sid:1014;)
alert udp any any -> any 123          (msg:"NTP monlist request"; content:"|17 00 03 2A|"; sid:1015;)
alert udp any any -> any 1900         (msg:"SSDP search for everything"; content:"M-SEARCH * HTTP/1.1"; content:"ssdp:all"; sid:1016;)
alert udp any any -> any 11211        (msg:"memcached statistics over UDP"; content:"stats|0D 0A|"; sid:1017;)
alert udp any 1024: -> any 69         (msg:"TFTP fetch of a start-up file"; content:"startup-config"; sid:1018;)
alert tcp any any -> any any          (msg:"test file of anti-virus makers"; content:"EICAR-STANDARD-ANTIVIRUS-TEST-FILE"; sid:1019;)
drop  tcp any any -> any 3389         (msg:"remote desktop cookie of a worm"; content:"mstshash=NCRACK_USER"; sid:1020;)
alert tcp any any -> any 6667         (msg:"bot joins its channel"; content:"JOIN #"; content:"!advscan"; sid:1021;)
drop  udp any any -> any 1434         (msg:"database worm over UDP"; content:"|04 01 01 01 01|"; content:"Qh.dllhel32hkern"; sid:1022;)
alert icmp any any -> any any         (msg:"tunnel over ping"; content:"SSH-2.0-"; sid:1023;)
drop  tcp any any -> any [2375:2376]  (msg:"container made over an open engine"; content:"POST /containers/create"; content:"Privileged"; sid:1024;)
"""  # noqa: E501
