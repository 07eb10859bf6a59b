"""One set-associative structure in plain Python: replacement policies and index expressions.

The lower half of the oracle in `reference.py`. A set is a list of keys; each policy keeps the little that
its definition names, and asks nothing of the others.
"""

import re
from collections.abc import Callable, Hashable
from typing import Any


def point_away(tree: dict[tuple[int, int], int], way: int, ways: int) -> None:
    """Make every tree bit on the path to `way` point to the other half (bit 0: the lower half is next)."""
    low, high = 0, ways
    while high - low > 1:
        middle = (low + high) // 2
        tree[low, high] = 1 if way < middle else 0
        low, high = (low, middle) if way < middle else (middle, high)


def pointed_at(tree: dict[tuple[int, int], int], ways: int) -> int:
    """Follow the tree bits to a way."""
    low, high = 0, ways
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tree.get((low, high), 0) else (low, middle)
    return low


class Row:
    """One set: `ways` keys, and what its policy remembers."""

    def __init__(self, policy: str, ways: int, number: int) -> None:
        self.policy, self.ways = policy, ways
        self.keys: list[Hashable] = [None] * ways
        self.order: list[int] = []  # lru, fifo: the next victim first
        self.seed = (number * 2654435761 + 12345) & 0x7FFFFFFF  # random
        self.trees: list[dict[tuple[int, int], int]] = [
            {},
            {},
            {},
        ]  # tree-plru: the first; plru4: one a group
        self.group = 0  # plru4: of the most recently used way
        self.used: set[int] = set()  # nru
        self.distance = [0] * ways  # srrip

    def touch(self, way: int, *, filled: bool) -> None:
        if self.policy == "lru" or (self.policy == "fifo" and filled):
            self.order = [other for other in self.order if other != way] + [way]
        elif self.policy == "tree-plru":
            point_away(self.trees[0], way, self.ways)
        elif self.policy == "mru+1%3-plru4":
            self.group = way // 4
            point_away(self.trees[self.group], way % 4, 4)
        elif self.policy == "nru":
            self.used.add(way)
            if len(self.used) == self.ways:
                self.used = {way}
        elif self.policy == "srrip":
            self.distance[way] = 2 if filled else 0

    def victim(self) -> int:
        if None in self.keys:
            return self.keys.index(None)
        if self.policy in ("lru", "fifo"):
            return self.order[0]
        if self.policy == "random":
            self.seed = (self.seed * 1103515245 + 12345) & 0x7FFFFFFF
            return (self.seed >> 16) % self.ways
        if self.policy == "tree-plru":
            return pointed_at(self.trees[0], self.ways)
        if self.policy == "mru+1%3-plru4":
            group = (self.group + 1) % 3
            return 4 * group + pointed_at(self.trees[group], 4)
        if self.policy == "nru":
            return min(way for way in range(self.ways) if way not in self.used or self.ways == 1)
        while 3 not in self.distance:  # srrip
            self.distance = [distance + 1 for distance in self.distance]
        return self.distance.index(3)

    def hit(self, key: Hashable) -> bool:
        """Look a key up; a hit is remembered."""
        if key not in self.keys:
            return False
        self.touch(self.keys.index(key), filled=False)
        return True

    def put(self, key: Hashable) -> Hashable:
        """Fill a key; returns the key that had to go, or None."""
        if self.hit(key):
            return None
        way = self.victim()
        gone, self.keys[way] = self.keys[way], key
        self.touch(way, filled=True)
        return gone

    def drop(self, way: int) -> None:
        """Empty a way; what the policy remembers of the others stays."""
        self.keys[way] = None
        self.order = [other for other in self.order if other != way]
        self.used.discard(way)


class Array:
    """A set-associative structure. Keys are (set, ...) tuples, so that a key knows where it belongs."""

    def __init__(self, description: Any, entries: int, ways: int, policy: str = "lru") -> None:
        self.description, self.policy = description, policy
        self.ways = ways or entries
        self.sets = entries // self.ways
        self.used: dict[int, Row] = {}  # the sets that were ever used

    def row(self, number: int) -> Row:
        if number not in self.used:
            assert 0 <= number < self.sets
            self.used[number] = Row(self.policy, self.ways, number)
        return self.used[number]

    def hit(self, key: tuple[Any, ...]) -> bool:
        return self.row(key[0]).hit(key)

    def put(self, key: tuple[Any, ...]) -> Any:
        return self.row(key[0]).put(key)

    def remove(self, key: tuple[Any, ...]) -> None:
        row = self.row(key[0])
        if key in row.keys:
            row.drop(row.keys.index(key))

    def drop(self, unwanted: Callable[[Any], bool]) -> int:
        """Empty the ways of all unwanted keys; returns how many."""
        dropped = 0
        for row in self.used.values():
            for way, key in enumerate(row.keys):
                if key is not None and unwanted(key):
                    row.drop(way)
                    dropped += 1
        return dropped


def index_value(expression: str, number: int) -> int:
    """Value of an index expression: VPN[high:low], VPN[bit], a ^ b, {a, b} with the highest bits first."""
    tokens = re.findall(r"VPN\[\d+(?::\d+)?\]|[{},^]", expression)

    def term() -> tuple[int, int]:  # value, width
        token = tokens.pop(0)
        if token == "{":
            value, width = xor()
            while tokens.pop(0) == ",":
                low, low_width = xor()
                value, width = value << low_width | low, width + low_width
            return value, width
        bits = [int(bit) for bit in re.findall(r"\d+", token)]
        high, low = bits[0], bits[-1]
        return number >> low & ((1 << (high - low + 1)) - 1), high - low + 1

    def xor() -> tuple[int, int]:
        value, width = term()
        while tokens and tokens[0] == "^":
            tokens.pop(0)
            other, other_width = term()
            value, width = value ^ other, max(width, other_width)
        return value, width

    return xor()[0]
