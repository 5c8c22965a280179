"""Copies of an application: "we deploy as many instances of each application [...] as necessary" (section 5.1).

A copy is the same graph under a name and number of its own, with keys and clients of its own; nothing joins it to
the others but the nodes that they share.
"""

from __future__ import annotations

from dataclasses import replace

from microservices.application import Application
from nodes.deployment import Deployment

MARK = "#"
NUMBERS_APART = 1000  # more than there are applications


def copies_of(application: Application, copies: int) -> tuple[Application, ...]:
    """Return the application itself and `copies` - 1 more of it: nfv-fin, nfv-fin#2, ..."""
    return tuple(application if copy == 0 else replace(application, name=f"{application.name}{MARK}{copy + 1}",
                                                       number=application.number + copy * NUMBERS_APART)
                 for copy in range(copies))


def workload_of(deployed: Application | Deployment) -> str:
    """Return the name of the application that something is a copy of, which is that of its workload."""
    return deployed.name.partition(MARK)[0]
