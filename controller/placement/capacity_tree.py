"""What is free on the nodes of one class, kept so that the first, the best and the least bad fit are found quickly.

A segment tree: a leaf is a node with what is free of each of the five resources and their sum; an inner one holds, of
all leaves below it, the most of each resource and the least sum. A subtree in which no node has enough of some
resource, or none is fuller than the best found so far, is never entered.

                 (5 most, least sum)
                /                    \\
        (5 most, least sum)   (5 most, least sum)
          /         \\            /        \\
        node 0    node 1      node 2    node 3

All amounts are integers, so that taking and giving back leave no trace and ties are exact. A query walks from left to
right and takes a later leaf only if it is better, so of equals the first is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Shares: TypeAlias = tuple[int, int, int, int, int]  # of each Resource, in parts of a node's capacity

ABSENT = (-1, -1, -1, -1, -1)  # what a node that is down or does not exist has free: too little for anything
_NEVER = 1 << 62
_ABSENT_LEAF = (*ABSENT, _NEVER)


class CapacityTree:
    """The nodes of one class by position, each with its free shares."""

    __slots__ = ("_size", "_tree")

    def __init__(self, free: Sequence[Shares]) -> None:
        self._size = size = 1 << max(0, (len(free) - 1).bit_length())
        leaves = [(*f, sum(f)) if f != ABSENT else _ABSENT_LEAF for f in free]
        tree = self._tree = [_ABSENT_LEAF] * size + leaves + [_ABSENT_LEAF] * (size - len(leaves))
        for i in range(size - 1, 0, -1):
            left, right = tree[2 * i], tree[2 * i + 1]
            tree[i] = left if left == right else _joined(left, right)

    def set(self, position: int, free: Shares) -> None:
        """Note what the node at `position` has free now; ABSENT if it is down."""
        tree = self._tree
        i = position + self._size
        tree[i] = (*free, free[0] + free[1] + free[2] + free[3] + free[4]) if free != ABSENT else _ABSENT_LEAF
        while i > 1:
            i >>= 1
            am, ad, ac, an, ao, least = tree[2 * i]
            bm, bd, bc, bn, bo, other = tree[2 * i + 1]
            new = (am if am > bm else bm, ad if ad > bd else bd, ac if ac > bc else bc, an if an > bn else bn,
                   ao if ao > bo else bo, least if least < other else other)
            if new == tree[i]:
                return
            tree[i] = new

    def first(self, need: Shares, start: int, end: int) -> int:
        """Return the first position from `start` on, before `end`, with `need` free; -1 if there is none."""
        tree, size = self._tree, self._size
        nm, nd, nc, nn, no = need
        stack = self._cover(start, end)
        while stack:
            i = stack.pop()
            m, d, c, n, o, _ = tree[i]
            if nm > m or nc > c or nn > n or no > o or nd > d:
                continue
            if i >= size:
                return i - size
            stack.append(2 * i + 1)
            stack.append(2 * i)
        return -1

    def best(self, need: Shares, start: int, end: int) -> tuple[int, int]:
        """Return (sum, position) of the node with `need` free that has least free, in sum; (_, -1) if none."""
        tree, size = self._tree, self._size
        nm, nd, nc, nn, no = need
        best, found = _NEVER, -1
        stack = self._cover(start, end)
        while stack:
            i = stack.pop()
            m, d, c, n, o, least = tree[i]
            if least >= best or nm > m or nc > c or nn > n or no > o or nd > d:
                continue
            if i >= size:
                best, found = least, i - size
                continue
            stack.append(2 * i + 1)
            stack.append(2 * i)
        return best, found

    def closest(self, need: Shares, start: int, end: int) -> tuple[int, int]:
        """Return (excess, position) of the node overcommitted least; (_, -1) if none has the memory and disk.

        The excess is what of the three rates is lacking, as shares of capacity, added up.
        """
        tree, size = self._tree, self._size
        nm, nd, nc, nn, no = need
        best, found = _NEVER, -1
        stack = self._cover(start, end)
        while stack:
            i = stack.pop()
            m, d, c, n, o, _ = tree[i]
            if nm > m or nd > d:
                continue
            excess = (nc - c if nc > c else 0) + (nn - n if nn > n else 0) + (no - o if no > o else 0)
            if excess >= best:
                continue
            if i >= size:
                best, found = excess, i - size
                continue
            stack.append(2 * i + 1)
            stack.append(2 * i)
        return best, found

    def _cover(self, start: int, end: int) -> list[int]:
        """Return the fewest subtrees that make up a range, the leftmost last."""
        lo, hi = start + self._size, end + self._size
        left: list[int] = []
        right: list[int] = []
        while lo < hi:
            if lo & 1:
                left.append(lo)
                lo += 1
            if hi & 1:
                hi -= 1
                right.append(hi)
            lo >>= 1
            hi >>= 1
        left.reverse()
        right += left
        return right


def _joined(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, int, int, int, int, int]:
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]), max(a[4], b[4]), min(a[5], b[5]))
