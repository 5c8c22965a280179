"""Table 1: what each microservice costs in time and power on each node class, calibrated.

RPS, watts and cores are the paper's. What follows from them with the assumptions of `assumptions.py`:

    cost at 512 bytes   cores / RPS, on one core of Table 1's processor (E5-2680 v3; LiquidIO II's cnMIPS64). Where the
                        network was the limit the cores were not full, so there it is headroom x cores / RPS.
    cost at b bytes     that x (fixed share + (1 - fixed share) x b / 512)

Functions take a microservice by its name or class; a class that Table 1 does not have brings its own `profile`.
"""

from __future__ import annotations

from dataclasses import dataclass

from microservices.assumptions import DEFAULTS, MEASURED_BYTES, Assumptions, relative_cost, wire_bytes
from microservices.errors import ServiceError
from microservices.measured import Column, Cost, Measured, Profile
from microservices.service import Microservice, service_class

Service = str | type[Microservice]

TABLE_1_CORES = 12  # of the E5-2680 v3, and of the LiquidIO II
LINE_GBPS = 10.0  # "single 10GbE on each side" of section 2.3's two servers
LINE_RPS = LINE_GBPS * 1e9 / 8 / wire_bytes(MEASURED_BYTES)

# Table 1 as printed: thousand requests/s, active watts, cores, mean ms, 99th percentile ms; the SmartNIC's cores are
# always all 12 (section 2.3) and not printed.
_PRINTED = """
               Linux                            kernel bypass                    SmartNIC
ipsec          821.3   117.0  12   1.8   6.6    911.9   112.1  12   1.7   5.2    1851.1  23.4    0.2    0.8
bm25           91.9    116.4  12   40.3  205.8  99.5    110.0  12   30.7  155.6  394.1   19.2    4.1    12.4
nids           1781.1  111.0  12   0.06  0.2    1841.1  106.8  12   0.05  0.15   1988.8  23.4    0.03   0.1
recommend      3.6     109.4  12   86.6  477.0  4.1     111.7  12   78.7  358.6  12.8    18.9    21.3   123.6
natv4          1889.6  72.1   8    0.04  0.1    1917.5  52.1   4    0.04  0.1    2053.1  23.6    0.03   0.09
count          1960.8  68.1   6    0.07  0.1    1960.0  48.6   4    0.03  0.1    2016.8  21.0    0.03   0.09
ema            1966.1  72.7   8    0.04  0.2    2009.2  52.1   4    0.03  0.09   2052.0  22.0    0.03   0.08
kvs            1946.2  48.6   8    0.04  0.1    2005.0  33.6   2    0.04  0.1    2033.4  21.6    0.03   0.1
flow_monitor   1944.1  70.9   8    0.04  0.1    2014.4  49.8   4    0.03  0.09   2032.6  24.3    0.03   0.08
ddos           1989.5  111.2  12   0.05  0.2    1844.8  105.7  12   0.05  0.2    1952.5  24.3    0.03   0.1
knn            42.2    118.3  12   53.7  163.4  42.4    110.4  12   45.8  161.3  29.9    20.0    20.6   80.3
spike          91.9    112.5  12   29.3  94.5   104.3   112.3  12   25.7  83.0   73.8    23.5    9.0    50.3
bayes          12.1    113.9  12   82.0  406.5  13.7    112.0  12   80.6  400.5  1.6     19.5    41.9   164.7
api_gateway    1537.6  108.5  12   0.9   3.2    1584.3  110.6  12   0.8   2.7    124.5   24.7    8.5    403.6
top_ranker     711.9   119.7  12   4.0   15.0   771.9   109.2  12   3.5   12.3   14.8    20.3    31.1   154.9
sql            463.3   114.7  12   6.9   31.1   528.0   113.0  12   6.7   29.5   39.5    18.8    29.5   104.2
"""

# Sections 2.3 ("branch-heavy with large working sets that are not handled well by the simpler cache hierarchy of the
# SmartNIC") and 5.2 ("the microservices that cause interference", which adds Spike).
MEMORY_INTENSIVE = frozenset({"api_gateway", "bayes", "spike", "sql", "top_ranker"})


def _read(words: list[str]) -> Measured:
    krps, watts, cores, mean_ms, p99_ms = words
    return Measured(round(float(krps) * 1e3, 1), float(watts), int(cores), float(mean_ms) / 1e3, float(p99_ms) / 1e3)


def _table_1() -> dict[str, dict[Column, Measured]]:
    table = {}
    for line in _PRINTED.strip().splitlines()[1:]:
        name, *words = line.split()
        table[name] = {Column.LINUX: _read(words[:5]), Column.BYPASS: _read(words[5:10]),
                       Column.SMARTNIC: _read([*words[10:12], str(TABLE_1_CORES), *words[12:]])}
    return table


TABLE_1: dict[str, dict[Column, Measured]] = _table_1()


@dataclass(frozen=True, slots=True)
class CostLaw:
    """Seconds on one core of Table 1's processor: `fixed_s`, and `per_byte_s` for each byte of the payload."""

    fixed_s: float
    per_byte_s: float

    def cost_s(self, payload_bytes: float) -> float:
        return self.fixed_s + self.per_byte_s * payload_bytes


def cost_law(service: Service, column: Column, assumptions: Assumptions = DEFAULTS) -> CostLaw:
    """Return the law by which requests of any size cost time; raises ServiceError without a profile."""
    own = _own_cost(service, column)
    share = assumptions.smartnic_fixed_share if column is Column.SMARTNIC else assumptions.host_fixed_share
    if own is None:
        row = _row(service, column)
        at_512_s = peak_utilisation(service, column, assumptions) * row.cores / row.rps
    else:
        at_512_s, share = own.cost_s, share if own.fixed_share is None else own.fixed_share
    fixed_s = at_512_s * relative_cost(0, share)
    return CostLaw(fixed_s, (at_512_s - fixed_s) / MEASURED_BYTES)


def stack_s(column: Column, assumptions: Assumptions = DEFAULTS) -> float:
    """Return the core time that receiving and sending one packet takes of every request in `column`, at 512 bytes.

    Table 1 does not tell it apart. It is at most what the cheapest microservice costs in all.
    """
    cheapest_s = min(cost_law(service, column, assumptions).cost_s(MEASURED_BYTES) for service in TABLE_1)
    return assumptions.stack_share * cheapest_s


def cost_s(service: Service, column: Column, payload_bytes: float, assumptions: Assumptions = DEFAULTS) -> float:
    """Return seconds per request with this payload on one core of Table 1's processor of that column."""
    return cost_law(service, column, assumptions).cost_s(payload_bytes)


def is_network_bound(service: Service, column: Column, assumptions: Assumptions = DEFAULTS) -> bool:
    """Say whether the network, not the cores, was the limit in Table 1.

    It was where the throughput is at least `network_bound_from` of the line rate for 512 bytes (578 on the wire, 2.16
    million/s) and, on a host, cores were left over. The cores of a SmartNIC cannot be left out, so there the rate
    decides alone. A microservice with a cost of its own in that column is never bound.
    """
    if _own_cost(service, column) is not None:
        return False
    row = _row(service, column)
    cores_left = column is Column.SMARTNIC or row.cores < TABLE_1_CORES
    return cores_left and row.rps >= assumptions.network_bound_from * LINE_RPS


def peak_utilisation(service: Service, column: Column, assumptions: Assumptions = DEFAULTS) -> float:
    """Return how busy the active cores were at the peak, 0 to 1."""
    return assumptions.network_bound_headroom if is_network_bound(service, column, assumptions) else 1.0


def active_cores(service: Service, column: Column) -> int:
    """Return how many cores Table 1 needed for the peak; all 12 for a cost of one's own."""
    return TABLE_1_CORES if _own_cost(service, column) is not None else _row(service, column).cores


def lull_share(column: Column, assumptions: Assumptions = DEFAULTS) -> float:
    """Return the power of an idle core that does not sleep over that of a busy one; SmartNIC cores never rest."""
    return {Column.LINUX: assumptions.linux_lull_share, Column.BYPASS: assumptions.bypass_lull_share,
            Column.SMARTNIC: 1.0}[column]


def core_watts(service: Service, column: Column, assumptions: Assumptions = DEFAULTS) -> float:
    """Return the active power of one host core (E5-2680 v3) while it executes `service`.

    Table 1's watts are those of cores that are busy for u = `peak_utilisation` and lull for the rest, so a busy one
    draws watts / (cores x (u + (1 - u) x lull share)). Raises ServiceError for the SmartNIC's column: its cores are not
    told apart by power; see `smartnic_watts`.
    """
    if column is Column.SMARTNIC:
        raise ServiceError("core_watts is of a host's column, linux or bypass; a SmartNIC's power is of the whole card")
    own = _own_cost(service, column)
    if own is not None:
        return own.watts if own.watts is not None else _usual_core_watts(column)
    row = _row(service, column)
    busy = peak_utilisation(service, column, assumptions)
    return row.active_watts / (row.cores * (busy + (1 - busy) * lull_share(column, assumptions)))


def full_host_watts(column: Column) -> float:
    """Return the most that Table 1's host draws with all 12 cores busy, whatever runs on it."""
    return max(row[column].active_watts for row in TABLE_1.values() if row[column].cores == TABLE_1_CORES)


def smartnic_watts(service: Service) -> float:
    """Return the active power of a whole LiquidIO II at the peak of `service`."""
    own = _own_cost(service, Column.SMARTNIC)
    if own is None:
        return _row(service, Column.SMARTNIC).active_watts
    rows = [row[Column.SMARTNIC].active_watts for row in TABLE_1.values()]
    return own.watts if own.watts is not None else sum(rows) / len(rows)


def smartnic_floor_watts() -> float:
    """Return the least that a LiquidIO II draws in Table 1: its 12 cores are always active (section 2.3)."""
    return min(row[Column.SMARTNIC].active_watts for row in TABLE_1.values())


def full_smartnic_watts() -> float:
    """Return the most that a LiquidIO II draws in Table 1."""
    return max(row[Column.SMARTNIC].active_watts for row in TABLE_1.values())


def hol_weight(service: Service, assumptions: Assumptions = DEFAULTS) -> float:
    """Return what each core that is busy with `service` on a SmartNIC adds to its agent's time per frame.

    In multiples of that time: with weight 4 on two cores, a frame takes 1 + 2 x 4 = 9 times as long.
    """
    profile = _profile(service)
    if isinstance(profile, str):
        return assumptions.hol_factor if profile in MEMORY_INTENSIVE else 0.0
    if profile.hol_weight is not None:
        return profile.hol_weight
    return assumptions.hol_factor if profile.like in MEMORY_INTENSIVE else 0.0


def column_of(family: str, stack: Column) -> Column:
    """Return the column that a node's cost comes from: cnMIPS cores (SmartNICs, Wimpy) have one, Xeons one per stack.

    `family` is that of `topologies.cluster.Processor`. Raises ServiceError for another one, or a stack that is none.
    """
    if stack is Column.SMARTNIC:
        raise ServiceError("a host's network stack is linux or bypass, not smartnic")
    if family == "cnmips":
        return Column.SMARTNIC
    if family == "xeon":
        return stack
    raise ServiceError(f"no column of Table 1 for processor family {family!r}; there are xeon and cnmips")


def _profile(service: Service) -> str | Profile:
    """Return the row of Table 1 that a microservice is, or the profile of its own."""
    name = service if isinstance(service, str) else service.name
    if name in TABLE_1 and (isinstance(service, str) or service is service_class(name)):
        return name
    found = service_class(service) if isinstance(service, str) else service
    profile = found.profile
    if profile is None:
        raise ServiceError(f'microservice {name!r} has no profile, so nobody knows what it costs: give its class one, '
                           f'for example profile = Profile(like="kvs") (microservices/measured.py)')
    if profile.like is not None and profile.like not in TABLE_1:
        raise ServiceError(f"microservice {name!r} is like {profile.like!r}, which Table 1 does not have; it has "
                           f"{', '.join(sorted(TABLE_1))}")
    return profile


def _own_cost(service: Service, column: Column) -> Cost | None:
    """Return the cost that a profile of its own states; None where a row of Table 1 does."""
    profile = _profile(service)
    if isinstance(profile, str):
        return None
    own = profile.own(column)
    if own is None and profile.like is None:
        name = service if isinstance(service, str) else service.name
        raise ServiceError(f"microservice {name!r}: its profile has no cost in column {column.value!r}, and nothing "
                           "that it is like")
    return own


def _row(service: Service, column: Column) -> Measured:
    profile = _profile(service)
    name = profile if isinstance(profile, str) else profile.like
    assert name is not None  # _own_cost has been asked first
    return TABLE_1[name][column]


def _usual_core_watts(column: Column) -> float:
    full = [row[column].active_watts for row in TABLE_1.values() if row[column].cores == TABLE_1_CORES]
    return sum(full) / len(full) / TABLE_1_CORES
