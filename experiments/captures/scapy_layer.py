"""The E3 wire format as scapy layers, made from the one table in nodes.messages.

    from experiments.captures.scapy_layer import E3, LAYERS
    IP(dst="10.1.1.11") / UDP(dport=DATA_PORT) / E3() / LAYERS[KIND_REQUEST](request_id=7) / b"payload"

`E3` holds the fields that every message starts with; what follows is the layer of its kind. `kind` and `length`
are filled in when they are not given. Datagrams on E3's ports that do not start as E3 messages stay raw.
"""

from __future__ import annotations

from typing import Any

from scapy.fields import ByteEnumField, ByteField, Field, IntField, IPField, LongField, ShortField, XShortField
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw, bind_layers

from nodes.messages import HEADER, LAYOUTS, MAGIC, VERSION, Layout
from nodes.messages import Field as WireField
from topologies.addressing import CONTROL_PORTS, DATA_PORT

E3_PORTS = (DATA_PORT, *CONTROL_PORTS)
_FIELD_OF_CODE: dict[str, Any] = {"B": ByteField, "H": ShortField, "I": IntField, "Q": LongField}


def _scapy_field(field: WireField) -> Field[Any, Any]:
    """Return the scapy field of `field`; raises KeyError for a struct code that has none here."""
    if field.code == "ip":
        return IPField(field.name, "0.0.0.0")
    if field.name == "length":
        return ShortField("length", None)
    return _FIELD_OF_CODE[field.code](field.name, 0)


def _header_field(field: WireField) -> Field[Any, Any]:
    if field.name == "magic":
        return XShortField("magic", MAGIC)
    if field.name == "version":
        return ByteField("version", VERSION)
    if field.name == "kind":
        return ByteEnumField("kind", 0, {kind: layout.name for kind, layout in LAYOUTS.items()})
    return _scapy_field(field)


class E3(Packet):
    """The four bytes that every message starts with."""

    name = "E3"
    fields_desc = [_header_field(f) for f in HEADER]  # noqa: RUF012 (scapy's own contract)

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *args: Any, **kwargs: Any) -> type[Packet]:
        """Leave datagrams raw that do not start with the magic number."""
        return Raw if _pkt is not None and _pkt[:2] != MAGIC.to_bytes(2, "big") else cls


class E3Body(Packet):
    """What one kind of message holds after E3, up to its payload."""

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.length is None:  # the last field of every layout that has a payload
            pkt = pkt[:-2] + len(pay).to_bytes(2, "big")
        return pkt + pay

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes | None]:
        return s[:self.length], s[self.length:]


class E3Bare(Packet):
    """A kind of message that holds its fields and no payload."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes | None]:
        return b"", s


def _layer(layout: Layout) -> type[Packet]:
    title = "".join(word.capitalize() for word in layout.name.split("_"))
    layer: type[Packet] = type(f"E3{title}", (E3Body if layout.has_payload else E3Bare,), {
        "name": f"E3 {layout.name}", "fields_desc": [_scapy_field(f) for f in layout.fields]})
    bind_layers(E3, layer, kind=layout.kind)
    return layer


LAYERS: dict[int, type[Packet]] = {kind: _layer(layout) for kind, layout in LAYOUTS.items()}

for _port in E3_PORTS:
    bind_layers(UDP, E3, sport=_port)
    bind_layers(UDP, E3, dport=_port)
