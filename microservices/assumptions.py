"""Every assumption of ours that requests, node speed, communication and power rest on, in one place, with its range.

Table 1 and Table 4 calibrate; where they and the paper's text leave something open, a number stands here with the
words that it rests on. A run takes one `Assumptions`; a sensitivity run takes `varied(name, value)` from `low` to
`high` (`./e3 run table5 --sensitivity`). None of them is fitted to a figure that the testbed is then compared with.
"""

from __future__ import annotations

from math import sqrt

import msgspec

from microservices.errors import ServiceError

MEASURED_BYTES = 512  # Table 1: "random 512B requests" (section 2.3)
BALANCED_BYTES = (256, 512)  # section 2.3: "Here, network and compute bandwidth utilization are balanced"
# What a UDP payload takes on the wire beside itself: UDP 8, IPv4 20, Ethernet 14 + 4, preamble 8, gap 12.
WIRE_OVERHEAD_BYTES = 66
SMARTNIC_FIXED_SHARE = 0.9


def wire_bytes(payload_bytes: float) -> float:
    """Return the bytes of wire time that a datagram with this payload takes."""
    return payload_bytes + WIRE_OVERHEAD_BYTES


def relative_cost(payload_bytes: float, fixed_share: float) -> float:
    """Return the cost of a request over that of one of 512 bytes: a fixed part, and a part in proportion to size."""
    return fixed_share + (1 - fixed_share) * payload_bytes / MEASURED_BYTES


def headroom_at_balance(balanced_bytes: float, fixed_share: float) -> float:
    """Return how busy a SmartNIC's cores are at 512 bytes and full line rate, if both are full at `balanced_bytes`.

    At the balanced size b cores and wire are both full, cores = rate(b) x cost(b). At 512 bytes the wire is full, and
    the cores are busy for rate(512) x cost(512). Rates go as 1 / wire bytes, so that their quotient is

        headroom = wire_bytes(b) / wire_bytes(512) / relative_cost(b)

    With the middle of 256 and 512 bytes, their geometric mean of 362, and a fixed share of 0.9:
    428 / 578 / 0.971 = 0.76. The two ends of the range give 0.59 and 1.
    """
    return wire_bytes(balanced_bytes) / wire_bytes(MEASURED_BYTES) / relative_cost(balanced_bytes, fixed_share)


NETWORK_BOUND_HEADROOM = round(headroom_at_balance(sqrt(BALANCED_BYTES[0] * BALANCED_BYTES[1]),
                                                   SMARTNIC_FIXED_SHARE), 2)


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """The values that one run assumes. `ASSUMPTIONS` says of each what it means and what it rests on."""

    analytics_share: float = 0.5
    logged_share: float = 1.0
    last_stage_share: float = 1.0
    request_bytes: float = float(MEASURED_BYTES)
    zipf: float = 1.0
    keys: float = 1000.0
    malicious_share: float = 0.02
    network_bound_from: float = 0.85
    network_bound_headroom: float = NETWORK_BOUND_HEADROOM
    host_fixed_share: float = 0.4
    smartnic_fixed_share: float = SMARTNIC_FIXED_SHARE
    host_host_rtt_s: float = 20e-6
    smartnic_host_rtt_cut: float = 0.833
    smartnic_smartnic_rtt_cut: float = 0.862
    linux_rtt_factor: float = 2.5
    tor_s: float = 0.8e-6
    in_node_s: float = 0.2e-6
    stack_share: float = 0.5
    forward_s: float = 0.1e-6
    hol_factor: float = 4.0
    core_sleep_after_s: float = 400e-6
    linux_lull_share: float = 0.5
    bypass_lull_share: float = 1.0
    work_per_clock_8160: float = 1.0
    work_per_clock_2620: float = 1.0
    work_per_clock_6880: float = 1.0
    hyper_threading_gain: float = 1.0
    cap_at_peak: bool = True
    copy_share: float = 0.5


class Assumption(msgspec.Struct, frozen=True):
    """One field of `Assumptions`: its default, the range of its sensitivity run, and the paper's words behind it."""

    name: str
    default: float
    low: float
    high: float
    meaning: str
    rests_on: str


DEFAULTS = Assumptions()


def _assumed(name: str, low: float, high: float, meaning: str, rests_on: str) -> Assumption:
    return Assumption(name, float(getattr(DEFAULTS, name)), low, high, meaning, rests_on)


ASSUMPTIONS: tuple[Assumption, ...] = (
    _assumed("analytics_share", 0.1, 1.0,
             "trigger: share of SQL updates in IOT-TS that set off EMA, Spike and Recommend",
             'section 2.1: "SQL store updates trigger data analytic tasks [...] based on thresholds"; no figure: half'),
    _assumed("logged_share", 0.1, 1.0,
             "trigger: share of device updates in IOT-DH that are counted and logged (Count, SQL)",
             'Table 3 names the microservices of the "IoT data hub", not when each is called; a hub logs everything'),
    _assumed("last_stage_share", 0.25, 1.0,
             "visits: share of requests that reach the last stage of RTA-PTC (Top Ranker), RTA-SF (Bayes) and RTA-SHM "
             "(BM25); what does not is answered by the stage before",
             'section 4: RTA is "a dataflow processing graph of workers that pass data tuples"; no visit counts, so '
             "every tuple goes all the way"),
    _assumed("request_bytes", 256.0, 1024.0,
             "payload of a client's request",
             'section 2.3: "random 512B requests"; section 4: "trace-based and synthetic" workloads, without sizes'),
    _assumed("zipf", 0.0, 1.2,
             "exponent of the Zipf law by which requests fall on flows or keys; 0: evenly",
             "section 4 gives references for its traces and no distribution; 1 is usual for flows and keys"),
    _assumed("keys", 100.0, 100_000.0,
             "how many flows or keys there are",
             "section 4 does not say; the traces that it refers to are not at hand"),
    _assumed("malicious_share", 0.0, 0.2,
             "share of packets that a rule of the NIDS matches: they are answered there, and never encrypted",
             'section 4 names "Intrusion detection" and no share of attacks'),
    _assumed("network_bound_from", 0.8, 0.95,
             "share of the line rate from which a row of Table 1 counts as bound by the network",
             "Table 1's fastest rows reach 90 to 95 % of the line rate for 512 bytes whatever they do, which is the "
             "network's doing; IPsec on the SmartNIC, with 85.6 %, is on either side within the range"),
    _assumed("network_bound_headroom", 0.5, 1.0,
             "how busy the cores are at the peak of a network-bound row of Table 1: its cost is this x cores / RPS",
             'section 2.3, of the SmartNIC: at 256-512 B "network and compute bandwidth utilization are balanced"; '
             "derived by headroom_at_balance for their geometric mean (the ends give 0.59 and 1). Taken for hosts too: "
             'there the paper says "as many [...] CPUs [...] as necessary" only'),
    _assumed("host_fixed_share", 0.2, 0.8,
             "share of the cost at 512 B that does not depend on the request's size, on hosts",
             'section 2.3: from 128 B or less to 256-512 B "the benefit almost doubles", so hosts profit from small '
             "requests far more than SmartNICs do"),
    _assumed("smartnic_fixed_share", 0.6, 1.0,
             "the same on SmartNICs and Wimpy",
             'section 2.3: small requests are "more computation intensive and we are limited by the SmartNIC\'s wimpy '
             'cores", so a smaller request costs them little less'),
    _assumed("host_host_rtt_s", 12e-6, 40e-6,
             "unloaded round trip between two hosts over the ToR, with kernel bypass",
             "Figure 3's text gives ratios only; 20 us is ours, usual for kernel bypass on 10GbE; with less than 12 us "
             "a SmartNIC's 13.8 % of it would be over before the ToR's tor_s is"),
    _assumed("smartnic_host_rtt_cut", 0.7, 0.9,
             "by how much the round trip between SmartNIC and host over PCIe is lower than that",
             'section 2.4: "up to 83.3%" lower: an input, not a prediction'),
    _assumed("smartnic_smartnic_rtt_cut", 0.7, 0.9,
             "by how much the round trip between SmartNICs over the ToR is lower than that",
             'section 2.4: "up to [...] 86.2%" lower: an input, not a prediction'),
    _assumed("linux_rtt_factor", 1.5, 4.0,
             "round trip between hosts by the Linux stack over that by kernel bypass",
             'section 3.1: "among host cores across different servers, E3 uses the Linux network stack"; no figure'),
    _assumed("tor_s", 0.4e-6, 1.2e-6,
             "one way through ToR and cables",
             'section 5 names the switch, an Arista DCS-7050S, and no latency; 0.8 us is its class'),
    _assumed("in_node_s", 0.1e-6, 1e-6,
             "hand-over between two microservices on one node",
             'section 4: "per-core, multi-producer, single-consumer FIFO queues in shared memory"; no figure'),
    _assumed("stack_share", 0.0, 1.0,
             "how much of the cheapest row's cost in a column of Table 1 is for receiving and sending a packet: what a "
             "microservice that a neighbour on its node calls, by a queue in memory, does not pay",
             'section 4: "communication among co-located microservices uses [...] FIFO queues in shared memory", and '
             "section 3.1's mechanisms; Table 1's rows all include a packet in and a packet out, so the cheapest of "
             "them bounds it; the middle of what is possible"),
    _assumed("forward_s", 0.05e-6, 0.4e-6,
             "the SmartNIC agent's time on one frame that no microservice interferes with",
             'section 3: "For each packet, the agent determines the destination", on dedicated cores, and line rate '
             "is reached in Table 1; no figure"),
    _assumed("hol_factor", 1.0, 16.0,
             "what each core that is busy with a memory-intensive microservice adds to that time, in forward_s",
             'section 2.4: microservices "contend with SmartNIC firmware for cache and memory bandwidth. This can '
             'create a head-of-line blocking problem"; no figure'),
    _assumed("core_sleep_after_s", 20e-6, 2e-3,
             "a host core that has been idle for longer is in its deepest sleep",
             'section 2.3: "put unused CPUs to their deepest sleep state"; 400 us is the target residency that '
             "Linux's intel_idle has for C6 of Haswell, the generation of the E5-2680 v3"),
    _assumed("linux_lull_share", 0.0, 1.0,
             "power of a host core that is idle but not yet asleep over that of a busy one, with the Linux stack",
             "the paper does not say; its Linux stack is driven by interrupts, so a core halts between requests"),
    _assumed("bypass_lull_share", 0.5, 1.0,
             "the same, with kernel bypass",
             'section 5.1: insights of others "to reduce polling overheads": a bypass stack polls, at full power'),
    _assumed("work_per_clock_8160", 0.8, 1.6,
             "work that a core of SuperBeefy (Xeon Platinum 8160) does per clock over one of the E5-2680 v3",
             "Table 1 has no column for it; section 5 gives its cores and clock only"),
    _assumed("work_per_clock_2620", 0.8, 1.2,
             "the same of a Type2 host's core (8-core Xeon E5-2620 at 2.1 GHz)",
             "Table 1 has no column for it; section 5 gives its cores and clock only"),
    _assumed("work_per_clock_6880", 0.8, 1.2,
             "work that a core of Wimpy (CN6880) does per clock over one of the LiquidIO II",
             "section 5: both have cnMIPS64 cores at 1.2 GHz, 32 and 12; Table 1 has a column for the latter"),
    _assumed("hyper_threading_gain", 1.0, 1.3,
             "throughput of a core with hyper-threading over that of the cores of Table 1",
             'section 5: "We enable hyper-threading"; section 2.3 does not say whether Table 1 had it'),
    _assumed("cap_at_peak", 0.0, 1.0,
             "1: no server draws more at the wall than Table 4's peak; 0: idle power and Table 1's active power add up",
             "Type1: 98 W idle + 118 W of Beefy's host + 24 W of a SmartNIC = 240 W, and Table 4 has 222 W; Type2 has "
             "107 W between idle and peak for 16 host cores and four SmartNICs of up to 24.7 W"),
    _assumed("copy_share", 0.0, 1.0,
             "core time of taking what a request did into a backup's copy of the state, over that of a request of as "
             "many bytes",
             "section 3.5 replicates and gives no cost; receiving an update, writing it and acknowledging it is a "
             "request without its computing: half, between nothing and doing it all again"),
)

_BY_NAME = {assumption.name: assumption for assumption in ASSUMPTIONS}


def assumption(name: str) -> Assumption:
    """Return what is said of a field; raises ServiceError with the names there are."""
    if name not in _BY_NAME:
        raise ServiceError(f"no assumption {name!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def varied(name: str, value: float, base: Assumptions = DEFAULTS) -> Assumptions:
    """Return `base` with one field changed; raises ServiceError for a name or value out of its range."""
    about = assumption(name)
    if not about.low <= value <= about.high:
        raise ServiceError(f"assumption {name} is {value:g}; its range is {about.low:g} to {about.high:g}")
    is_switch = isinstance(getattr(DEFAULTS, name), bool)
    return msgspec.structs.replace(base, **{name: bool(round(value)) if is_switch else float(value)})
