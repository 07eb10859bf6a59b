"""Kernel releases, and the rules that hold in them.

Each rule says since and until when it holds, and where that is written. Trees that were read: 6.1.176,
6.12.107, 7.2.13, 7.3.4; 5.13 to 5.18 from the patches as posted (see the reference, "Kernel sources read").
"""

import re
from dataclasses import dataclass
from typing import Literal

from pagewalk.errors import BadInput

Mark = Literal["src", "mail", "live", "derived", "recall"]
"""How sure: read in the source, read in the named mail, seen on a running kernel, worked out, from memory."""

NEWEST = "7.3"
"""The newest release whose source was read; later ones are taken to follow its rules."""

_LAST_MINOR = {3: 19, 4: 20, 5: 19, 6: 19}
"""Of each series that has ended."""


@dataclass(frozen=True, order=True)
class Release:
    """A kernel release; comparable. Stable updates do not matter here.

    Attributes
    ----------
    major, minor : int
    patched : bool
        The eighth posting of the huge vmalloc series (November 2020), which sorts before 5.13.
    """

    major: int
    minor: int
    patched: bool = False

    @property
    def name(self) -> str:
        """6.12, or v8."""
        return "v8" if self.patched else f"{self.major}.{self.minor}"

    def follows(self, key: str) -> bool:
        """Whether the rule of that key holds in this release."""
        return any(rule.holds_in(self) for rule in RULES if rule.key == key)


def release(name: str) -> Release:
    """The release of a name like ``6.12``, ``6.1.0-56-amd64``, ``Linux version 6.1...``, ``v8``.

    Raises
    ------
    BadInput
        The name holds no version, or one that never was.
    """
    if name == "v8":
        return Release(5, 12, patched=True)
    match = re.search(r"(?<![\d.])(\d{1,2})\.(\d{1,3})(?![\d])", name[:200])
    if not match:
        raise BadInput(f"kernel {name[:40]!r}", "not a kernel release", "write it like 6.12; or v8")
    found = Release(int(match[1]), int(match[2]))
    if found.minor > (last := _LAST_MINOR.get(found.major, found.minor)):
        raise BadInput(
            f"kernel {found.name}", "was never released", f"{found.major}.{last} was the last of its series"
        )
    return found


@dataclass(frozen=True)
class Rule:
    """Something that a range of releases does.

    Attributes
    ----------
    key : str
        What code asks for.
    since : str
        First release that does it.
    until : str
        First release that no longer does; "" where the newest source still has it.
    what : str
        For people.
    source : str
    mark : str
    """

    key: str
    since: str
    until: str
    what: str
    source: str
    mark: Mark

    def holds_in(self, release_: Release) -> bool:
        """Whether a release follows this rule."""
        return release(self.since) <= release_ and not (self.until and release(self.until) <= release_)


_V8 = "20201128152559.999540-12-npiggin@gmail.com"
_V13 = "20210317062402.533919-1-npiggin@gmail.com"
_OPT_IN = "559089e0a93d; 6.1.176 and 6.12.107 mm/vmalloc.c"
_NO_DIVISION = "20241023162711.2579610-3-rppt@kernel.org; 7.2.13 and 7.3.4 mm/vmalloc.c"
_ALL = "6.1.176, 6.12.107, 7.3.4 mm/vmalloc.c"

RULES: tuple[Rule, ...] = (
    Rule("huge", "v8", "", "vmalloc may map an area with PMD leaves", _V8, "mail"),
    Rule("page-kernel-only", "v8", "5.13", "huge only if the protection is exactly PAGE_KERNEL", _V8, "mail"),
    Rule("opt-out", "5.13", "5.18", "huge unless the caller passes VM_NO_HUGE_VMAP", _V13, "mail"),
    Rule("opt-in", "5.18", "", "huge only if the caller passes VM_ALLOW_HUGE_VMAP", _OPT_IN, "src"),
    Rule(
        "divide-by-nodes",
        "v8",
        "6.13",
        "a request for any node must reach a PMD for each online node",
        f"{_V8}; 6.1.176 and 6.12.107 mm/vmalloc.c",
        "src",
    ),
    Rule("whole-size", "6.13", "", "the request as a whole must reach a PMD", _NO_DIVISION, "src"),
    Rule(
        "pte-sizes",
        "5.14",
        "",
        "below a PMD, the architecture may offer PTE-level blocks (contPTE)",
        "3382bbee0464; 6.1.176 mm/vmalloc.c",
        "src",
    ),
    Rule("round-up", "v8", "", "the area is rounded up to whole leaves and aligned to one", _ALL, "src"),
    Rule(
        "double-free-in-fallback",
        "v8",
        "5.13",
        "a huge attempt that got no memory runs into a BUG: the area is freed twice",
        "7db7564c-0600-33d9-68d9-61fa6fc1bc0d@huawei.com; fixed in v10 of the series",
        "mail",
    ),
    Rule(
        "fallback",
        "5.13",
        "",
        "no address, no memory or no leaf at a large size: the whole area once more with base pages",
        _ALL,
        "src",
    ),
    Rule("compound", "5.13", "5.18", "blocks stay compound pages", f"{_V13}, patch 13", "mail"),
    Rule(
        "split-blocks",
        "5.18",
        "",
        "blocks are split into order-0 pages after allocation",
        "3b8000ae185c, 20220422060107.781512-2-npiggin@gmail.com",
        "src",
    ),
    Rule(
        "local-node",
        "5.13",
        "5.16",
        "boot hash tables are all on the local node instead of interleaved",
        "20210928121040.2547407-1-chenwandun@huawei.com; the release of the fix was not checked",
        "mail",
    ),
    Rule(
        "interleave",
        "6.1",
        "",
        "memory for any node follows the task's policy: at boot interleaved, one block at a time",
        _ALL,
        "src",
    ),
    Rule(
        "bulk",
        "5.14",
        "",
        "base pages come from the bulk allocator, at most 100 a call",
        f"{_ALL}; since 5.14 from memory",
        "recall",
    ),
    Rule(
        "large-orders-first",
        "7.2",
        "",
        "before the normal loop, the largest orders that are free without direct reclaim",
        "7.2.13 and 7.3.4 mm/vmalloc.c; absent in 6.12.107; 20251021194455.33351-2-vishal.moola@gmail.com",
        "src",
    ),
    Rule(
        "vmap-nodes",
        "6.9",
        "",
        "freed addresses of up to 256 pages are kept per node and size; vmallocinfo is not sorted",
        "20240102184633.748113-1-urezki@gmail.com; 6.12.107 mm/vmalloc.c",
        "src",
    ),
    Rule(
        "reset-per-page",
        "v8",
        "",
        "freeing a VM_FLUSH_RESET_PERMS area resets the direct map base page by base page",
        "7.3.4 mm/vmalloc.c vm_reset_perms",
        "src",
    ),
    Rule(
        "reset-scan-by-block",
        "v8",
        "",
        "the range to flush on such a free is found in steps of the area's page order",
        f"{_V8}; 7.3.4 mm/vmalloc.c vm_reset_perms",
        "src",
    ),
    Rule(
        "range-valid",
        "6.13",
        "",
        "set_direct_map_valid_noflush takes a number of pages",
        "7.3.4 mm/execmem.c",
        "src",
    ),
    Rule(
        "bpf-pack",
        "5.18",
        "",
        "BPF programs share packs of a PMD for each node",
        "20220707223546.4124919-1-song@kernel.org; vmallocinfo of 6.1 and 6.18",
        "live",
    ),
    Rule(
        "rox-cache",
        "6.15",
        "",
        "x86-64 text of modules, BPF and probes comes from a read-only executable cache of PMD blocks",
        "5185e7f9f3bd (6.13, disabled there), 64f6a4e10c05; the release is inferred from apply dates",
        "mail",
    ),
    Rule(
        "collapse",
        "6.15",
        "",
        "x86: set_memory_rox tries to merge leaves again, at the addresses that it was called with",
        "41d88484c71c, as posted: 20250126074733.1384926-4-rppt@kernel.org; the release is inferred from "
        "apply dates",
        "mail",
    ),
    Rule(
        "riscv-linear-map",
        "6.8",
        "",
        "riscv: set_memory_* changes the linear map too, and splits its leaves",
        "arch/riscv/mm/pageattr.c of later trees, not in the reference; the release is from memory",
        "recall",
    ),
    Rule(
        "leaves-in-place",
        "6.18",
        "",
        "arm64: where all CPUs can change a leaf's size in place, rodata=full needs no base pages",
        "7.3.4 arch/arm64/mm; 20250917190323.3828347-1-yang@os.amperecomputing.com; the release is inferred "
        "from apply dates",
        "mail",
    ),
    Rule(
        "huge-if-it-may-block",
        "7.3",
        "",
        "kvmalloc asks for huge areas only where the allocation may block",
        "7.3.4; 6.1.176 and 6.12.107 accept any; between them not known",
        "src",
    ),
)
"""All rules of vmalloc that depend on the release; architectures are in `pagewalk.linux.rules.hooks`."""

BOUNDARIES = (
    *("v8", "5.13", "5.14", "5.16", "5.18"),
    *("6.1", "6.2", "6.8", "6.9", "6.12", "6.13", "6.15", "6.16", "6.18", "7.2", "7.3"),
)
"""Releases worth showing: each starts or ends a rule, or its source was read."""
