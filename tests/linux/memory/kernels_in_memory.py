"""Small kernels to try things on, and what must hold of them at any time."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from pagewalk.linux.geometry import GIB
from pagewalk.linux.memory.conditions import fresh
from pagewalk.linux.memory.kernel import Booted, Kernel
from pagewalk.linux.memory.pages import Pages
from pagewalk.linux.rules.eligibility import Kernel as Rules
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release

X86_IN_V8 = replace(hooks("x86-64"), huge_since="v8")
"""What the exchange feared: x86 with the patches of its time. (Only powerpc had them enabled until 5.18.)"""

RANGES = {0: [(0, 3 * GIB), (4 * GIB, 9 * GIB)]}
TWO_NODES = {0: [(0, 3 * GIB), (4 * GIB, 5 * GIB)], 1: [(5 * GIB, 9 * GIB)]}


def kernel(version="6.12", arch="x86-64", ranges=None, booted=True, memory=None, **more) -> Kernel:
    ranges = ranges or RANGES
    rules = Rules(release(version), hooks(arch) if isinstance(arch, str) else arch, nodes=len(ranges))
    spans = [span for node in ranges.values() for span in node]
    made = Kernel(rules, memory or fresh(ranges), spans, cpus=2, **more)
    if booted:
        made.apply(Booted())
    return made


def mapped_frames(tables) -> np.ndarray:
    """Every frame that tables map, once for each base page that maps it; ascending."""
    parts = [np.empty(0, np.int64)]
    for (level, _), table in tables.tables.items():
        first = table.target[table.target >= 0]
        if len(first):
            parts.append((first[:, None] + np.arange(1 << (tables.shift[level] - tables.base))).ravel())
    return np.sort(np.concatenate(parts))


def table_pages(tables) -> set[int]:
    """Frames that tables take; small ones share a page, and one page is kept to be filled up."""
    pages = [table.page for table in tables.tables.values() if table.page >= 0]
    assert len(set(pages)) == len(pages) or tables.parts
    shared = {page: count for page, count in tables.parts.items() if page >= 0}
    assert {page: pages.count(page) for page in shared} == shared
    return {*pages, *shared}


def check(kernel: Kernel, others: int = 0) -> None:
    """No overlap, no frame twice but by vmap, every frame accounted for, counters equal a recount.

    `others` are frames that a test took for itself.
    """
    space, maps = kernel.maps.space, kernel.maps
    used = space.used()
    assert all(a.end <= b.start for a, b in pairwise(used))
    areas = list(kernel.areas.values())
    assert {area.start: area.start + area.span_bytes for area in areas} == {
        s: b.end for s, b in space.busy.items()
    }
    for area in areas:
        for page in {0, len(area.frames) // 2, len(area.frames) - 1} if len(area.frames) else ():
            assert maps.tables.frame_of(area.start + (page << kernel.shift)) == area.frames[page]
    frames, shown = (
        [area.frames for area in areas if (area.kind == "vmap") is vmap] for vmap in (False, True)
    )
    frames = np.sort(np.concatenate([np.empty(0, np.int64), *frames]))
    blocks = list(kernel.part(Pages).blocks.values())
    taken = np.concatenate([np.empty(0, np.int64), *(block.frames for block in blocks)])
    own = np.concatenate([frames, taken])
    assert len(np.unique(own)) == len(own)
    assert np.isin(np.concatenate([np.empty(0, np.int64), *shown]), taken).all()
    mapped = mapped_frames(maps.tables)
    memory = sum(
        (low >> kernel.shift <= mapped) & (mapped < high >> kernel.shift) for low, high in kernel.ranges
    )
    assert np.array_equal(mapped[memory > 0], np.sort(np.concatenate([frames, *shown])))
    devices = [area for area in areas if area.kind == "ioremap"]
    assert (memory == 0).sum() == sum(area.size_bytes for area in devices) >> kernel.shift
    tables = [page for tables in (maps.tables, maps.direct.tables) for page in table_pages(tables)]
    assert not np.isin(tables, own).any()
    assert len(set(tables)) == len(tables)
    assert kernel.memory.held_frames() == len(own) + len(tables) + others
    total = kernel.memory.free_frames() + kernel.memory.held_frames()
    assert total << kernel.shift == sum(n << s for s, n in maps.direct.count.items())
    assert {s: n for s, n in maps.direct.count.items() if n} == maps.direct.tables.leaves()
    assert kernel.vmalloc_used() == len(frames) << kernel.shift >> 10
