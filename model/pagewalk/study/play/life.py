"""The life of a kernel's memory, sampled after every event."""

from collections import Counter

from pagewalk.linux.memory.areas import Area
from pagewalk.linux.memory.kernel import Kernel
from pagewalk.replay.result import KernelLife
from pagewalk.study.play.steps import KernelTable

COUNTED = (
    *("split", "merge", "flush-all", "flush-range", "failure", "attribute_calls", "purges"),
    *("huge_fallbacks", "left_read_only", "left_absent", "table_pages_taken"),
)
"""Counts that are kept, as `pagewalk.linux.memory.kernel.Kernel.counts` names them."""


def born(table: KernelTable, kernel: Kernel) -> KernelLife:
    """Give the life of a kernel that starts to boot."""
    life = KernelLife(
        name=table.name,
        release=kernel.rules.release.name,
        arch=kernel.rules.arch.name,
        reset=kernel.how_to_reset,
        parameters=sorted(kernel.rules.parameters),
    )
    sample(life, kernel, "start", 0)
    return life


def sample(life: KernelLife, kernel: Kernel, event: str, accesses: int) -> None:
    """Add a sample: what this event, and all before it, made of memory."""
    life.events.append(event)
    life.accesses.append(accesses)
    for line, kb in kernel.maps.direct.meminfo().items():
        life.direct_map_kb.setdefault(line, []).append(kb)
    for name in COUNTED:
        life.counts.setdefault(name, []).append(kernel.counts[name])
    areas = kernel.areas.values()
    memory = {
        "areas": sum(area.size_bytes for area in areas),
        "rounding_waste": sum(waste_bytes(area, kernel.page_bytes) for area in areas),
        "page_tables": kernel.maps.tables.table_bytes(),
    }
    for name, size in memory.items():
        life.memory.setdefault(name, []).append(size)


def waste_bytes(area: Area, page_bytes: int) -> int:
    """What rounding up to leaves added to an area beyond the base pages that were asked for."""
    return area.size_bytes - -(-area.asked_bytes // page_bytes) * page_bytes


def failures(kernel: Kernel) -> dict[str, int]:
    """What failed, and how often, the most frequent first."""
    return dict(Counter(h.why for h in kernel.maps.log if h.what == "failure").most_common())
