"""Hardware counters of this process in user mode, where the kernel shows them, to check what times say.

Linux include/uapi/linux/perf_event.h. Kernels hide them from most guests.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319}
"""Architecture -> number of the system call perf_event_open (Linux, the tables of each architecture)."""

CLOSE_ON_EXEC = 8
EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6
ATTRIBUTES_BYTES = 64
"""Of struct perf_event_attr in its first version."""


class Event(NamedTuple):
    """What to count: `type` and `config` of struct perf_event_attr."""

    kind: int
    config: int


CYCLES = Event(0, 0)
DTLB_LOAD_MISSES = Event(3, 3 | 0 << 8 | 1 << 16)
"""The kernel's generic event: loads that walk on Intel, that miss the first level on AMD."""


@contextmanager
def counting(event: Event) -> Iterator[Callable[[], int] | None]:
    """Give a function that reads the counter of an event; None where the kernel does not give one."""
    call = CALLS.get(platform.machine())
    attributes = struct.pack("<IIQQQQQ", event.kind, ATTRIBUTES_BYTES, event.config, 0, 0, 0, _EXCLUDED)
    attributes = attributes.ljust(ATTRIBUTES_BYTES, b"\0")
    opened = -1
    if call is not None:
        every_cpu, no_group = ctypes.c_int(-1), ctypes.c_int(-1)
        libc = ctypes.CDLL(None, use_errno=True)
        opened = libc.syscall(call, attributes, 0, every_cpu, no_group, ctypes.c_ulong(CLOSE_ON_EXEC))
    if opened < 0:
        yield None
        return
    try:
        yield lambda: int.from_bytes(os.read(opened, 8), "little")
    finally:
        os.close(opened)


_EXCLUDED = EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR


def counted(event: Event, go: Callable[[], object]) -> int | None:
    """How often an event happens while `go` runs; None where the kernel does not count it."""
    with counting(event) as read:
        if read is None:
            return None
        before = read()
        go()
        return read() - before
