"""The translate stage: records to translation units, runs of one unit taken as one."""

from pagewalk.kernels._jit import jit

FETCH, STORE = 0x20, 0x08
"""As in `pagewalk.trace.trace`; kernels import nothing of the package."""


@jit
def units(
    page,
    flags,
    cpu,
    unit_of_page,
    fetches,
    kinds,
    whole_runs,
    last,
    touched,
    unit,
    kind,
    cpu_out,
    at,
    page_out,
):
    """Write an access for each change of (unit, kind, CPU); return how many, all accesses, and fetches.

    A repeated access hits the most recent entry of its L1 set, which changes nothing under most policies.

    Parameters
    ----------
    page, flags, cpu : ndarray of uint32, uint8, uint8
        The records; `flags` or `cpu` of length 0: all loads, all on CPU 0.
    unit_of_page : ndarray of int32
    fetches : bool
        Whether instruction fetches are replayed or passed over.
    kinds : bool
        Whether loads, stores and fetches can go different ways.
    whole_runs : ndarray of bool, shape (3,)
        For each kind, whether its runs may be taken as one: not where an L1 does not serve it, nor with
        SRRIP, where the first hit of an entry tells it from one that was only filled.
    last : ndarray of int64, shape (3,)
        Unit, kind and CPU of the access before; kept over calls.
    touched : ndarray of int64
        Accesses of each distinct page are added.
    unit, kind, cpu_out : ndarray of int32, int64, int64
        The accesses that remain.
    at : ndarray of int64
        Their positions among the accesses of this call.
    page_out : ndarray of uint32
        Their pages.
    """
    n = accesses = fetched = 0
    last_unit, last_kind, last_cpu = last[0], last[1], last[2]
    for i in range(len(page)):
        k = 0
        if len(flags) > 0:
            f = flags[i]
            if f & FETCH:
                if not fetches:
                    continue
                fetched += 1
            if kinds:
                k = 2 if f & FETCH else (f & STORE) >> 3
        p = page[i]
        touched[p] += 1
        u = unit_of_page[p]
        c = cpu[i] if len(cpu) > 0 else 0
        unit[n], kind[n], cpu_out[n], at[n], page_out[n] = u, k, c, accesses, p
        accesses += 1
        if u != last_unit or k != last_kind or c != last_cpu or not whole_runs[k]:
            n += 1
            last_unit, last_kind, last_cpu = u, k, c
    last[0], last[1], last[2] = last_unit, last_kind, last_cpu
    return n, accesses, fetched
