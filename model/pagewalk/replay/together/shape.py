"""What machines must have in common so that one pass of a trace serves them all."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Described, Machine, Tlb
from pagewalk.replay.engine import has_itlb
from pagewalk.replay.tables import Tables
from pagewalk.trace.trace import Trace

WORDS = {"source", "confidence", "assumed", "name"}
"""Fields that say where figures come from, and change no count."""


def figures(*tables: Described | None) -> bytes:
    """The figures of tables of a machine, as a key: equal where equal figures stand in the same order."""
    bare = [_bare(msgspec.to_builtins(table)) for table in tables]
    return msgspec.json.encode(bare, order="sorted")


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(inside) for name, inside in value.items() if name not in WORDS}
    return [_bare(inside) for inside in value] if isinstance(value, list) else value


def levels(machine: Machine) -> tuple[list[Tlb], list[Tlb]]:
    """The arrays of the first and of the second TLB level."""
    first, second = ([array for array in machine.tlb if array.level == level] for level in (1, 2))
    return first, second


def shape(machine: Machine, fetches: bool | None = None) -> bytes:
    """What machines that share translation and the first level have in common, as a key.

    Their second levels may differ in entries, ways, index, policy and hit cycles, and all that lies behind in
    anything, but for a guest.
    """
    first, second = levels(machine)
    kept = [
        (array.holds, array.serves, array.coalesce, array.level) for array in second
    ]  # what an entry is, which decides what a translation unit is
    rest = (
        machine.geometry,
        machine.choose,
        machine.inclusion,
        fetches or (fetches is None and has_itlb(machine)),
    )
    return figures(*first, machine.guest) + msgspec.json.encode((kept, rest))


def shares(trace: Trace, machine: Machine, cache_mode: str) -> bool:
    """Whether the machine's first level takes no notice of what lies behind it, and nothing else happens."""
    quiet = trace.events is None or not len(trace.events)
    return quiet and machine.inclusion == "none" and cache_mode == "walks-only"


def spaces(trace: Trace, tables: Tables) -> NDArray[np.int64]:
    """Address space of each translation unit; 0 is global."""
    found = np.zeros(len(tables.page), np.int64)
    if trace.spaces is not None:
        found[tables.unit_of_page] = trace.spaces
    return found
