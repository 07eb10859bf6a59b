"""From process ids to address spaces, and the switches between them."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.encode import RawChunk
from pagewalk.trace.trace import EVENT, SWITCH

MOST = 1 << 16
"""Address spaces that a trace can tell apart, 0 among them."""


class Processes:
    """Address spaces for process ids, numbered from 1 as they first appear.

    Addresses in the upper half belong to the kernel, which all share: space 0. An id of -1 is one process
    whose id is not known.

    Parameters
    ----------
    where : object
        What is read, for people.
    """

    def __init__(self, where: object) -> None:
        self._where = where
        self._numbers: dict[int, int] = {}
        self._running: dict[int, int] = {}

    def spaced(self, chunk: RawChunk, process: NDArray[np.int64]) -> RawChunk:
        """Give each access of a chunk its space.

        Raises
        ------
        BadInput
            There are more processes than can be told apart.
        """
        ids, first, which = np.unique(process, return_index=True, return_inverse=True)
        for each in ids[np.argsort(first)].tolist():
            self._numbers.setdefault(each, len(self._numbers) + 1)
        if len(self._numbers) >= MOST:
            raise BadInput(self._where, f"{MOST} processes", "cut the file")
        space = np.array([self._numbers[each] for each in ids.tolist()], np.uint16)[which]
        space[chunk.address >> np.uint64(63) != 0] = 0
        return chunk._replace(space=space)

    def switched(self, chunk: RawChunk) -> RawChunk:
        """Add an event wherever a CPU goes on in another space than its last; the kernel's is none."""
        assert chunk.space is not None
        found = []
        cpus = np.zeros(len(chunk.space), np.uint8) if chunk.cpu is None else chunk.cpu
        for cpu in np.unique(cpus).tolist():
            at = np.flatnonzero((cpus == cpu) & (chunk.space != 0))
            space = chunk.space[at]
            if not len(space):
                continue
            before = np.append(np.uint16(self._running.get(cpu, space[0])), space[:-1])
            self._running[cpu] = int(space[-1])
            changed = np.flatnonzero(space != before)
            events = np.zeros(len(changed), EVENT)
            events["position"], events["space"] = at[changed], space[changed]
            events["kind"], events["cpu"] = SWITCH, cpu
            found.append(events)
        events = np.concatenate(found) if found else np.zeros(0, EVENT)
        return chunk._replace(events=np.sort(events, order="position"))
