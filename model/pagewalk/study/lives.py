"""What the life of some vmalloc areas costs a kernel, by release: figures to keep an eye on.

The kernel is a small one of ours: x86-64, two nodes with 4 GiB each, two CPUs, fresh memory, just booted.
"""

from collections.abc import Sequence

from pagewalk.linux.geometry import GIB
from pagewalk.linux.memory.conditions import fresh
from pagewalk.linux.memory.kernel import (
    Booted,
    Kernel,
    SetMemory,
    UnmapAliases,
    Vfree,
    Vmalloc,
    Vrealloc,
)
from pagewalk.linux.rules.eligibility import Kernel as Rules
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release
from pagewalk.study.play.life import waste_bytes

Event = Vmalloc | Vfree | Vrealloc | SetMemory | UnmapAliases
"""What may happen in a life."""

RANGES = {0: [(0, 3 * GIB), (4 * GIB, 5 * GIB)], 1: [(5 * GIB, 9 * GIB)]}
"""Node -> its memory, with the hole below 4 GiB that PCs have."""

COUNTED = (
    *("split", "merge", "flush-all", "flush-range", "failure", "attribute_calls", "purges"),
    *("huge_fallbacks", "left_read_only", "left_absent", "reset_scan_steps", "table_pages_taken"),
)
"""Counts that are kept, as `pagewalk.linux.memory.kernel.Kernel.counts` names them."""


def live(events: Sequence[Event], version: str) -> dict[str, int]:
    """Let a kernel of that release live through events.

    Returns
    -------
    dict of str to int
        `COUNTED`, and in bytes: ``memory.areas``, rounding included; ``memory.rounding_waste``, by which that
        exceeds the base pages asked for; ``memory.page_tables``; ``direct_map.4K``, mapped by base pages.

    Raises
    ------
    BadInput
        No such release, or an event that cannot be (an area that is not there).
    """
    rules = Rules(release(version), hooks("x86-64"), nodes=len(RANGES))
    kernel = Kernel(rules, fresh(RANGES), [span for node in RANGES.values() for span in node], cpus=2)
    kernel.apply(Booted())
    for event in events:
        kernel.apply(event)
    areas = kernel.areas.values()
    return {
        **{name: kernel.counts[name] for name in COUNTED},
        "memory.areas": sum(area.size_bytes for area in areas),
        "memory.rounding_waste": sum(waste_bytes(area, kernel.page_bytes) for area in areas),
        "memory.page_tables": kernel.maps.tables.table_bytes(),
        "direct_map.4K": kernel.maps.direct.count[kernel.shift] << kernel.shift,
    }
