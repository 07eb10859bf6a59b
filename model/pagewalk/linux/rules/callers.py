"""Who asks for huge vmalloc, by release.

From 5.13 to 5.17 everyone did who did not opt out; since 5.18 only those below. Source: all call sites of
7.3.4 and 6.1.176, see the reference's section 3.2. Where only these two are known, the release between
them in which a caller began to ask is unknown, and stays so here.
"""

from dataclasses import dataclass

from pagewalk.linux.rules.releases import Mark, Release, release


@dataclass(frozen=True)
class Caller:
    """A user of huge vmalloc since the opt-in.

    Attributes
    ----------
    what : str
        For people.
    symbols : tuple of str
        Functions that ``/proc/vmallocinfo`` names for it, as far as samples show; a helper like kvmalloc is
        named by the function that called it.
    since : str
        First release in which it is known to ask.
    absent : str
        Last release in which it is known not to ask; "" where `since` is exact or it never asked before.
    how : str
        The flag's route, and conditions.
    source : str
    mark : str
    """

    what: str
    symbols: tuple[str, ...]
    since: str
    absent: str
    how: str
    source: str
    mark: Mark


_BOTH = "all call sites of 6.1.176 and 7.3.4"
_TRACES = "vmallocinfo of 6.1, mapped by 2 MiB leaves"

CALLERS: tuple[Caller, ...] = (
    Caller(
        "large boot hash tables",
        ("alloc_large_system_hash",),
        "5.18",
        "",
        "vmalloc_huge(size, GFP_ATOMIC)",
        f"{_BOTH}; since 5.18 from memory",
        "src",
    ),
    Caller(
        "kvmalloc family",
        ("alloc_fdtable", "nf_ct_alloc_hashtable"),
        "5.18",
        "",
        "VM_ALLOW_HUGE_VMAP (7.3: only if the allocation may block), after kmalloc failed; kmalloc cannot "
        "serve more than the largest buddy block (4 MiB with 4 KiB pages)",
        f"{_BOTH}; symbols: {_TRACES}; since 5.18 from memory",
        "src",
    ),
    Caller(
        "TCP established table of a network namespace",
        ("inet_pernet_hashinfo_alloc",),
        "6.1",
        "",
        "vmalloc_huge; size from the sysctl of the parent namespace",
        f"{_BOTH}; symbol from memory",
        "src",
    ),
    Caller(
        "UDP table of a network namespace",
        (),
        "7.3",
        "6.1",
        "vmalloc_huge; size from the sysctl of the parent namespace",
        _BOTH,
        "src",
    ),
    Caller("RPS sock-flow table", (), "7.3", "6.1", "vmalloc_huge", _BOTH, "src"),
    Caller(
        "futex tables",
        ("futex_hash_allocate",),
        "6.18",
        "6.1",
        "per node: vmalloc_huge_node, only above the largest buddy block; of a process: kvmalloc",
        f"{_BOTH}; symbol: vmallocinfo and trace events of 6.18",
        "live",
    ),
    Caller(
        "x86-64 executable memory cache",
        (),
        "6.15",
        "6.12",
        "rounded up to a PMD, PAGE_KERNEL, then set_memory_rox",
        f"{_BOTH}; 64f6a4e10c05",
        "mail",
    ),
    Caller("kexec handover restore", (), "7.3", "6.1", "keeps the flag of the preserved area", _BOTH, "src"),
)

NEVER: dict[str, str] = {
    "pcpu_create_chunk": "percpu chunks are mapped with base pages",
    "pcpu_get_vm_areas": "percpu chunks are mapped with base pages",
    "kernel_clone": "thread stacks",
    "dup_task_struct": "thread stacks",
    "irq_init_percpu_irqstack": "interrupt stacks come from vmap",
    "htab_map_alloc": "BPF maps call plain vmalloc",
    "array_map_alloc": "BPF maps call plain vmalloc",
    "bpf_prog_pack_alloc": "BPF packs come from the allocator of modules, which does not ask",
    "load_module": "modules change permissions section by section",
    "move_module": "modules change permissions section by section",
}
"""Symbol -> why it does not ask in any release since the opt-in (reference section 3.2, and the traces: a
pack of two nodes, 4 MiB, had base pages in 6.1)."""

TEXT = ("bpf_prog_pack_alloc", "load_module", "move_module")
"""Those whose memory may be a block of the cache for executable memory, which asks, where there is one (rule
``rox-cache``; reference section 4.6). Whether an area in vmallocinfo is such a block nobody wrote down."""


def asks(symbol: str, kernel: Release) -> bool | None:
    """Whether a caller asks for huge vmalloc in a release.

    Parameters
    ----------
    symbol : str
        As in vmallocinfo, without offset.
    kernel : Release

    Returns
    -------
    bool or None
        None where nobody wrote it down: an unknown symbol, a release between those that were read, or text
        where there is a cache for it.
    """
    if not kernel.follows("huge"):
        return False
    if not kernel.follows("opt-in"):
        return None
    if symbol in NEVER:
        return None if symbol in TEXT and kernel.follows("rox-cache") else False
    for caller in CALLERS:
        if symbol in caller.symbols:
            if release(caller.since) <= kernel:
                return True
            return False if caller.absent and kernel <= release(caller.absent) else None
    return None
