"""Which instances there are, what they are called, where each runs, and who must be told when one moves."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import MigrationError
from microservices.service import service_class
from nodes.deployment import Deployment

Key = tuple[int, int]  # application and instance numbers


@dataclass(frozen=True, slots=True)
class KnownInstance:
    """An instance of a deployment. `name` is APPLICATION/INSTANCE; `host_only` and `memory_mb` as of its class."""

    key: Key
    name: str
    service: str
    memory_mb: float
    host_only: bool


class Whereabouts:
    """All instances of the deployments that were added, and the node that each is believed to run on."""

    def __init__(self) -> None:
        self.instances: dict[Key, KnownInstance] = {}
        self.node_of: dict[Key, str] = {}  # of a replicated one, who serves
        self.replicated: set[Key] = set()
        self._near: dict[Key, tuple[Key, ...]] = {}  # whom it may send to, and who may send to it
        self._applications: dict[int, str] = {}
        self._by_name: dict[str, Key] = {}
        self._short: dict[str, list[Key]] = {}

    def add(self, deployment: Deployment) -> None:
        """Take the instances of a deployment; raises MigrationError for a known one that it places elsewhere."""
        application = deployment.application()
        moved = [p for p in deployment.places
                 if self.node_of.get((deployment.number, p.number), p.node) != p.node]
        if moved:
            where = self.node_of[deployment.number, moved[0].number]
            raise MigrationError(f"{deployment.name} places instance {moved[0].number} on {moved[0].node}, it runs on "
                                 f"{where}: what runs moves by migration only")
        self._applications[deployment.number] = deployment.name
        self.replicated |= {(deployment.number, number) for number in deployment.replicated}
        near: dict[Key, set[Key]] = {}
        for sender, receiver in application.edges:
            one, other = (deployment.number, sender), (deployment.number, receiver)
            near.setdefault(one, set()).add(other)
            near.setdefault(other, set()).add(one)
        named = {instance.number: instance for instance in application.instances}
        for place in deployment.places:
            instance, key = named[place.number], (deployment.number, place.number)
            kind = service_class(instance.service)
            known = KnownInstance(key, f"{deployment.name}/{instance.name}", instance.service, kind.memory_mb,
                                  kind.host_only)
            if key not in self.instances:
                self._short.setdefault(instance.name, []).append(key)
            self.instances[key] = known
            self._by_name[known.name] = key
            self._near[key] = tuple(sorted(near.get(key, ())))
            self.node_of.setdefault(key, place.node)

    def remove(self, application: int) -> None:
        """Forget the instances of an application."""
        for key in [key for key in self.instances if key[0] == application]:
            name = self.instances.pop(key).name
            self._by_name.pop(name, None)
            short = name.rpartition("/")[2]
            self._short[short].remove(key)
            if not self._short[short]:
                del self._short[short]
            for table in (self.node_of, self._near):
                table.pop(key, None)
            self.replicated.discard(key)
        self._applications.pop(application, None)

    def number_of(self, application: str) -> int | None:
        """Return the number of an application that is known, by its name; None for another."""
        return next((number for number, name in self._applications.items() if name == application), None)

    def applications(self) -> dict[int, str]:
        """Return the names of all applications by their numbers."""
        return dict(self._applications)

    def key_of(self, name: str) -> Key:
        """Return the instance called APPLICATION/INSTANCE, or INSTANCE where only one is; raises MigrationError."""
        if name in self._by_name:
            return self._by_name[name]
        short = self._short.get(name, [])
        if len(short) == 1:
            return short[0]
        if short:
            raise MigrationError(f"{name!r} can be {' or '.join(self.instances[key].name for key in short)}")
        some = sorted(self._by_name)
        raise MigrationError(f"no instance {name!r}; there are {', '.join(some[:8])}"
                             + (f", ... ({len(some)} in all)" if len(some) > 8 else ""))

    def name_of(self, key: Key) -> str:
        known = self.instances.get(key)
        return known.name if known is not None else f"{key[0]}/{key[1]}"

    def on(self, node: str) -> list[Key]:
        """Return the instances on a node, in order."""
        return sorted(key for key, where in self.node_of.items() if where == node)

    def are_neighbours(self, key: Key, other: Key) -> bool:
        """Return whether one of two instances may send to the other."""
        return other in self._near.get(key, ())

    def near(self, key: Key) -> tuple[Key, ...]:
        """Return the instances that may send to `key` or that it may send to, and that are placed."""
        return tuple(other for other in self._near.get(key, ()) if other in self.node_of)

    def neighbours(self, key: Key, *more: str) -> tuple[str, ...]:
        """Return the nodes with an instance that may send to `key` or that it may send to, and `more` nodes."""
        return tuple(sorted({*(self.node_of[other] for other in self.near(key)), *more}))
