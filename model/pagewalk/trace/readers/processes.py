"""From process ids to address spaces, and the switches between them."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.encode import RawChunk
from pagewalk.trace.trace import EVENT, RUNNING, SWITCH

MOST = 1 << 16
"""Address spaces that a trace can tell apart, 0 among them."""

CPUS = 1 << 8
"""CPUs that a trace can tell apart."""


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
        self._running = np.zeros(CPUS, np.uint16)
        self._known = np.zeros(CPUS, np.bool_)

    def spaced(self, chunk: RawChunk, process: NDArray[np.int64]) -> RawChunk:
        """Give each access of a chunk its space.

        Raises
        ------
        BadInput
            There are more processes than can be told apart.
        """
        run = np.flatnonzero(np.append(True, process[1:] != process[:-1])[: len(process)])
        ids, first, which = np.unique(process[run], return_index=True, return_inverse=True)
        for each in ids[np.argsort(first)].tolist():
            self._numbers.setdefault(each, len(self._numbers) + 1)
        if len(self._numbers) >= MOST:
            raise BadInput(self._where, f"{MOST} processes", "cut the file")
        number = np.array([self._numbers[each] for each in ids.tolist()], np.uint16)[which]
        space = np.repeat(number, np.diff(np.append(run, len(process))))
        space *= chunk.address.view(np.int64) >= 0
        return chunk._replace(space=space)

    def switched(self, chunk: RawChunk) -> RawChunk:
        """Add a switch wherever a CPU goes on in another space than its last; the kernel's is none.

        At the place of a CPU's first switch an event before it names the space that the CPU began in: a
        machine that keeps the entries of so many spaces then counts that one among them.
        """
        from pagewalk.kernels.trace.processes import switches

        assert chunk.space is not None
        cpus = np.zeros(len(chunk.space), np.uint8) if chunk.cpu is None else chunk.cpu
        room = len(chunk.space) + CPUS
        at, to, began = np.empty(room, np.int32), np.empty(room, np.uint16), np.empty(room, np.bool_)
        count = switches(chunk.space, cpus, self._running, self._known, at, to, began)
        events = np.zeros(count, EVENT)
        events["position"], events["space"], events["cpu"] = at[:count], to[:count], cpus[at[:count]]
        events["kind"] = np.where(began[:count], RUNNING, SWITCH)
        return chunk._replace(events=events)
