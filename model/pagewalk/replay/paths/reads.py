"""Reads of walks through data caches that are LRU and that nothing else enters (`kernels.lru.caches`).

Exact: the same counts as `kernels.general.caches` gives, which `replay(..., fast=False)` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine
from pagewalk.hardware.slices import set_of, sets_of
from pagewalk.replay.tables import Tables

if TYPE_CHECKING:
    from pagewalk.replay.tally import Tally


class LruReads:
    """The data caches of one CPU from the walker's entry on, and where reads were found in them.

    Attributes
    ----------
    found : ndarray of int64, shape (table levels + 1, places)
        Reads by the level of the table entry and by the place that had it; memory is the last place.
    """

    def __init__(self, machine: Machine, tables: Tables, entered: int) -> None:
        from pagewalk.kernels.lru.caches import make_caches

        levels = machine.cache[entered:]
        line, line_of = np.unique(tables.entry // levels[0].line_bytes, return_inverse=True)
        self.entered, self.leaf_level = entered, tables.leaf_level
        self.line_of = np.ascontiguousarray(line_of.reshape(tables.entry.shape).T, np.int32)
        self.caches = make_caches(
            np.stack([set_of(cache, line) for cache in levels], axis=1),
            np.array([sets_of(cache) for cache in levels], np.int64),
            np.array([c.ways for c in levels], np.int64),
            np.array([*(c.fill == "victim" for c in levels), False]),
            np.array([c.inclusive for c in levels]),
            np.array([*(c.latency_cycles for c in levels), machine.memory.latency_cycles], np.int64),
        )
        self.found = np.zeros((len(tables.entry), len(levels) + 1), np.int64)

    def send(self, unit: NDArray[np.int32], top: NDArray[np.int64], cycles: NDArray[np.int64]) -> None:
        """Read each walk's entries from the level below `top` down to the leaf's; add their latencies."""
        from pagewalk.kernels.lru.caches import lru_reads

        lru_reads(self.caches, unit, top, self.leaf_level, self.line_of, cycles, self.found)

    def count(self, tally: Tally) -> None:
        """Add to the tally what all reads came to."""
        places = self.found.sum(axis=0)
        tally.places[self.entered :] += places
        tally.level_cycles[: len(self.found)] += self.found @ self.caches.latency
        tally.caches[self.entered :, 1, 0] += places
        tally.caches[self.entered : -1, 1, 1] += (places.sum() - np.cumsum(places))[:-1]


def lru_reads_of(machine: Machine, tables: Tables, cpus: int, entered: int) -> LruReads | None:
    """The data caches as rows; None where they are not plain enough, or there are none.

    Parameters
    ----------
    machine, tables
    cpus : int
    entered : int
        Index of the cache that the walker's reads enter first.
    """
    from pagewalk.kernels.lru.caches import MAX_WAYS

    levels: list[Any] = machine.cache[entered:]
    plain = (
        bool(levels)
        and cpus == 1
        and machine.guest is None
        and all(cache.policy == "lru" and cache.ways <= MAX_WAYS for cache in levels)
        and len({cache.line_bytes for cache in levels}) == 1
    )
    return LruReads(machine, tables, entered) if plain else None
