"""The decision of one allocation: which leaf size is tried, how it is rounded and aligned, what follows.

Source: the reference's sections 3.1, 3.3, 3.5, which cite the patches and mm/vmalloc.c by release.
"""

from dataclasses import dataclass

from pagewalk.linux.rules.hooks import Hooks
from pagewalk.linux.rules.releases import Release


@dataclass(frozen=True)
class Kernel:
    """A running kernel, as far as these decisions depend on it.

    Attributes
    ----------
    release : Release
    arch : Hooks
    nodes : int
        Online NUMA nodes.
    ram_bytes : int
        All memory; larger requests are refused. 0: not limited.
    parameters : frozenset of str
        Boot parameters; ``nohugevmalloc`` and ``nohugeiomap`` matter.
    """

    release: Release
    arch: Hooks
    nodes: int = 1
    ram_bytes: int = 0
    parameters: frozenset[str] = frozenset()

    @property
    def base_bytes(self) -> int:
        """Size of a base page."""
        return 1 << self.arch.base_shift


@dataclass(frozen=True)
class Request:
    """One call of vmalloc.

    Attributes
    ----------
    size_bytes : int
    align_bytes : int
    node : int, optional
        None is NUMA_NO_NODE.
    allow_huge, no_huge : bool
        VM_ALLOW_HUGE_VMAP (5.18 and later) and VM_NO_HUGE_VMAP (5.13 to 5.17).
    protection : str
        Name of the page protection.
    guard : bool
        Not VM_NO_GUARD.
    """

    size_bytes: int
    align_bytes: int = 1
    node: int | None = None
    allow_huge: bool = False
    no_huge: bool = False
    protection: str = "PAGE_KERNEL"
    guard: bool = True


@dataclass(frozen=True)
class Attempt:
    """One try to make the area.

    Attributes
    ----------
    shift : int
        log2 of the block that is allocated and mapped as one; the page order is this less the base shift.
    align_bytes : int
        Of the area's start.
    area_bytes : int
        Rounded up to whole blocks, without the guard page: memory that it takes.
    span_bytes : int
        Addresses that it takes, guard page included: the size in vmallocinfo.
    """

    shift: int
    align_bytes: int
    area_bytes: int
    span_bytes: int


@dataclass(frozen=True)
class Decision:
    """What a kernel does with a request.

    Attributes
    ----------
    attempts : tuple of Attempt
        In the order in which they are tried; empty where the request is refused.
    why : str
        Why the first attempt is not larger, or why there is none; "" where PMD leaves are tried.
    """

    attempts: tuple[Attempt, ...]
    why: str = ""


def round_up(number: int, unit: int) -> int:
    """The least multiple of `unit` not below `number`."""
    return -(-number // unit) * unit


def decide(request: Request, kernel: Kernel) -> Decision:
    """Which attempts a kernel makes for a request.

    A large attempt is followed by one with base pages, with the size and alignment that were asked for: if
    addresses, memory or leaves fail at the large size, the whole area is tried again (not in v8, where
    this path was broken: rule ``double-free-in-fallback``).

    Returns
    -------
    Decision
    """
    if request.size_bytes <= 0:
        return Decision((), "a size of 0 is refused")
    if kernel.ram_bytes and round_up(request.size_bytes, kernel.base_bytes) > kernel.ram_bytes:
        return Decision((), "larger than all memory")
    base = _attempt(request, kernel, kernel.arch.base_shift)
    barred = _barred(request, kernel)
    if barred:
        return Decision((base,), barred)
    size = request.size_bytes
    if kernel.release.follows("divide-by-nodes") and request.node is None:
        size //= kernel.nodes
    if kernel.arch.pmd_shift and size >= 1 << kernel.arch.pmd_shift:
        return Decision((_attempt(request, kernel, kernel.arch.pmd_shift), base))
    share = f" for each of {kernel.nodes} nodes" if size != request.size_bytes else ""
    why = f"{size} bytes{share} are less than a PMD" if kernel.arch.pmd_shift else "no PMD leaves here"
    if kernel.release.follows("pte-sizes"):
        shift = kernel.arch.pte_shift(size, kernel.release)
        if shift > kernel.arch.base_shift:
            return Decision((_attempt(request, kernel, shift), base), why)
    return Decision((base,), why)


def _barred(request: Request, kernel: Kernel) -> str:
    """Why a request gets base pages whatever its size; "" where nothing bars it."""
    release = kernel.release
    if not release.follows("huge") or not kernel.arch.huge_in(release):
        return f"{release.name} has no huge vmalloc on {kernel.arch.name}"
    if "nohugevmalloc" in kernel.parameters:
        return "booted with nohugevmalloc"
    if release.follows("page-kernel-only") and request.protection != "PAGE_KERNEL":
        return f"the protection is {request.protection}, not PAGE_KERNEL"
    if release.follows("opt-out") and request.no_huge:
        return "the caller passes VM_NO_HUGE_VMAP"
    if release.follows("opt-in") and not request.allow_huge:
        return "the caller does not pass VM_ALLOW_HUGE_VMAP"
    return ""


def _attempt(request: Request, kernel: Kernel, shift: int) -> Attempt:
    area = round_up(request.size_bytes, 1 << shift)
    guard = kernel.base_bytes if request.guard else 0
    return Attempt(shift, max(request.align_bytes, 1 << shift), area, area + guard)


def leaves(virtual: int, physical: int, size_bytes: int, largest_shift: int, kernel: Kernel) -> list[int]:
    """Leaf sizes by which the mapper maps one physically contiguous range, in ascending address order.

    At each address it takes the largest leaf that the caller and the architecture allow, that virtual and
    physical address are aligned to, and that does not reach beyond the end (Linux 7.3 mm/vmalloc.c,
    reference section 3.3). vmalloc calls this once for each physical block, with the block's shift; so two
    neighbouring blocks never form a larger leaf.

    Parameters
    ----------
    virtual, physical, size_bytes : int
        Multiples of the base page.
    largest_shift : int
        The caller's limit: the block's shift for vmalloc, the base shift for vmap, see `ioremap_limit`.
    kernel : Kernel

    Returns
    -------
    list of int
        log2 of each leaf's size in bytes.
    """
    arch = kernel.arch
    blocks = arch.pte_shifts if arch.pte_hook_in(kernel.release) else ()
    sizes = sorted({arch.base_shift, *blocks, arch.pmd_shift, arch.pud_shift} - {0}, reverse=True)
    result = []
    at, end = 0, size_bytes
    while at < end:
        shift = next(
            size
            for size in sizes
            if size == arch.base_shift
            or (
                size <= largest_shift
                and end - at >= 1 << size
                and ((virtual + at) | (physical + at)) & ((1 << size) - 1) == 0
            )
        )
        result.append(shift)
        at += 1 << shift
    return result


def ioremap_limit(kernel: Kernel) -> int:
    """The largest leaf that ioremap may make, as a shift: PUD where there is one, base with nohugeiomap."""
    if "nohugeiomap" in kernel.parameters:
        return kernel.arch.base_shift
    return max(kernel.arch.pud_shift, kernel.arch.pmd_shift, kernel.arch.base_shift)


def ioremap_align(size_bytes: int, arch: Hooks) -> int:
    """Alignment of an ioremap area in bytes: the next power of two of its size, within limits."""
    return 1 << min(max((size_bytes - 1).bit_length(), arch.base_shift), arch.ioremap_shift)
