"""The door to Ryu or os-ken, its maintained continuation: whichever is installed, behind one face.

Ryu cannot be installed from Python 3.12 on; os-ken can, has the same programming interface and threads of its
own instead of eventlet's. E3_OPENFLOW=ryu or os_ken in the environment forces one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from controller.errors import OpenFlowLibraryError

KNOWN = ("ryu", "os_ken")
FORCE_VARIABLE = "E3_OPENFLOW"
OPENFLOW_15 = 6


@dataclass(frozen=True)
class OpenFlowLibrary:
    """What the app uses of the library; `modules` are the library's own."""

    name: str
    version: str
    App: Any
    EventBase: Any
    events: Any
    set_ev_cls: Callable[..., Any]
    MAIN_DISPATCHER: str
    DEAD_DISPATCHER: str
    spawn: Callable[..., Any]
    sleep: Callable[[float], None]

    def protocol(self) -> Any:
        """Return what stands for a switch when messages are only written, not sent."""
        return _module(self.name, "ofproto.ofproto_protocol").ProtocolDesc(OPENFLOW_15)

    def parse(self, protocol: Any, data: bytes) -> Any:
        """Return the message that `data`, one whole OpenFlow message, holds."""
        parser = _module(self.name, "ofproto.ofproto_parser")
        version, kind, length, xid = parser.header(data)
        return parser.msg(protocol, version, kind, length, xid, data)

    def serve(self, app_class: Any, host: str, port: int, **settings: Any) -> None:
        """Run `app_class(**settings)`, listening on `host`:`port`, until the process ends.

        The library's parsers were not made for hostile input, so `host` must be a loopback address.
        Raises OpenFlowLibraryError if it is not, if someone else listens there, or if listening ends.
        """
        if not _is_loopback(host):
            raise OpenFlowLibraryError(f"refusing to listen on {host!r}: only loopback addresses are allowed, "
                                       "for example 127.0.0.1")
        if not 1 <= port <= 65535:
            raise OpenFlowLibraryError(f"refusing to listen on port {port}; it can be 1 to 65535")
        _check_free(host, port)  # the library would find out in a thread of its own and tell nobody
        manager = _module(self.name, "base.app_manager").AppManager.get_instance()
        controller = _module(self.name, "controller.controller")
        controller.CONF(args=[], project="e3", default_config_files=[], default_config_dirs=[])
        controller.CONF.set_override("ofp_listen_host", host)
        controller.CONF.set_override("ofp_tcp_listen_port", port)
        manager.load_apps([f"{self.name}.controller.ofp_handler"])
        manager.applications_cls[app_class.__name__] = app_class
        services = manager.instantiate_apps(**settings)
        _module(self.name, "lib.hub").joinall(services)
        raise OpenFlowLibraryError(f"{self.name} has stopped listening on {host}:{port}; its log says why")


def load(name: str | None = None) -> OpenFlowLibrary:
    """Return library `name`, or the one that the environment forces, or the first of KNOWN that is installed.

    Raises OpenFlowLibraryError.
    """
    wanted = name or os.environ.get(FORCE_VARIABLE) or ""
    if wanted and wanted not in KNOWN:
        raise OpenFlowLibraryError(f"unknown OpenFlow library {wanted!r}; known: {', '.join(KNOWN)}")
    reasons = []
    for candidate in (wanted,) if wanted else KNOWN:
        try:
            return _load(candidate)
        except ImportError as error:
            reasons.append(f"{candidate}: {error}")
    raise OpenFlowLibraryError(f"no OpenFlow library: {'; '.join(reasons)}. Install ryu==4.34 (Python <= 3.11) "
                               "or os-ken (any)")


def _load(name: str) -> OpenFlowLibrary:
    if name == "ryu":
        _give_eventlet_what_ryu_expects()
    handler = _module(name, "controller.handler")
    base = _module(name, "base.app_manager")
    hub = _module(name, "lib.hub")
    _mend_readers(_module(name, "ofproto.ofproto_v1_5_parser"))
    version = importlib.metadata.version(name.replace("_", "-"))
    return OpenFlowLibrary(name, version, base.RyuApp if name == "ryu" else base.OSKenApp,
                           _module(name, "controller.event").EventBase, _module(name, "controller.ofp_event"),
                           handler.set_ev_cls, handler.MAIN_DISPATCHER, handler.DEAD_DISPATCHER, hub.spawn, hub.sleep)


def _module(library: str, path: str) -> Any:
    return importlib.import_module(f"{library}.{path}")


def _give_eventlet_what_ryu_expects() -> None:
    """Define the name that Ryu 4.34 imports from eventlet and that eventlet has dropped; nothing here uses it."""
    wsgi = importlib.import_module("eventlet.wsgi")
    if not hasattr(wsgi, "ALREADY_HANDLED"):
        wsgi.ALREADY_HANDLED = object()  # type: ignore[attr-defined]


def _mend_readers(parser: Any) -> None:
    """Mend how both libraries read what a switch has.

    They take what follows a bucket or a group for more of its properties, stumble over the padding of a
    copied field, and drop the whole reply, unseen, if one rule holds an action that they do not know. Here a
    bucket and a group are read only as far as they reach, a group that cannot be read keeps its id, and of a
    rule only what the app compares is read.
    """
    if getattr(parser.OFPFlowDesc, "mended", False):
        return
    parser.OFPFlowDesc.mended = True
    parser.OFPFlowDesc.parser = _rule_reader(parser)
    parser.OFPBucket.parser = _bounded(parser.OFPBucket.parser)
    parser.OFPGroupDescStats.parser = _group_reader(parser)


def _rule_reader(parser: Any) -> Callable[[Any, int], Any]:
    def read_rule(data: Any, offset: int) -> Any:
        length, table, priority, cookie = struct.unpack_from("!H2xBxH8xQ", data, offset)
        return parser.OFPFlowDesc(table_id=table, priority=priority, cookie=cookie, length=length)
    return read_rule


def _group_reader(parser: Any) -> Callable[[Any, int], Any]:
    read = _bounded(parser.OFPGroupDescStats.parser)

    def read_group(data: Any, offset: int) -> Any:
        try:
            return read(data, offset)
        except Exception:  # whatever the library's reader trips over, the group is none of ours
            length, kind, group_id = struct.unpack_from("!HBxI", data, offset)
            unread = parser.OFPGroupDescStats(kind, group_id)
            unread.length = length
            return unread
    return read_group


def _bounded(read: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    def read_one(data: Any, offset: int) -> Any:
        (length,) = struct.unpack_from("!H", data, offset)
        return read(data[offset:offset + length], 0)
    return read_one


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OpenFlowLibraryError(f"cannot listen on {host}:{port}: {error.strerror}") from error
