"""The cost stage: how many of the walks' cycles the program waits for."""

from pagewalk.kernels._jit import jit


@jit
def wait_for_walks(position, cycles, window, free, ring, clock):
    """Time that walks add to a program that may run `window` accesses ahead of an unfinished one.

    The program issues one access a cycle. A walk starts when its access is issued and a walker is free;
    an access is issued when every walk of an access at least `window` before it is done. With window 0
    the program waits for each walk.

    Parameters
    ----------
    position, cycles : ndarray of int64, shape (walks,)
        Position of the access in the replay, and cycles that the walk is pending once it started.
    window : int
    free : ndarray of int64, shape (walkers,)
        When each walker is free; kept over calls.
    ring : ndarray of int64, shape (window + 1, 2)
        Position and end of the walks that are not yet known to be done; kept over calls.
    clock : ndarray of int64, shape (3,)
        Cycles waited so far; head and length of the ring; kept over calls. The time at which the access
        at position p is issued is p + clock[0].
    """
    waited, head, length = clock[0], clock[1], clock[2]
    size = len(ring)
    for w in range(len(position)):
        p = position[w]
        while length > 0 and ring[head, 0] + window <= p:
            due = ring[head, 0] + window
            if ring[head, 1] > due + waited:
                waited = ring[head, 1] - due
            head = (head + 1) % size
            length -= 1
        walker = 0
        for other in range(1, len(free)):
            if free[other] < free[walker]:
                walker = other
        start = p + waited
        if free[walker] > start:
            start = free[walker]
        done = start + cycles[w]
        free[walker] = done
        if window == 0:
            waited += done - (p + waited)
        else:
            ring[(head + length) % size, 0] = p
            ring[(head + length) % size, 1] = done
            length += 1
    clock[0], clock[1], clock[2] = waited, head, length
