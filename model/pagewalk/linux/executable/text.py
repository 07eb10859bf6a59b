"""Memory for kernel code: an area of its own for each user, or (x86-64 since 6.15) pieces of a shared cache.

Source: Linux 7.3 mm/execmem.c, see the reference's section 4.6. The cache's areas lack VM_FLUSH_RESET_PERMS:
before one is freed, the direct map is made valid block by block (`execmem_set_direct_map_valid`, read in the
patches of 2024 and 2025 to that file).
"""

from bisect import insort
from dataclasses import dataclass, field

from pagewalk.linux.geometry import MIB
from pagewalk.linux.memory.areas import Area
from pagewalk.linux.memory.kernel import Kernel
from pagewalk.linux.rules.eligibility import Request, round_up

PMD_BYTES = 2 * MIB
"""Of x86-64, the only architecture with the cache."""


@dataclass
class TextMemory:
    """The cache of read-only executable memory.

    Attributes
    ----------
    free : list of (int, int)
        Address and size of free pieces, ascending; neighbours are merged.
    pieces : dict of str to (int, int)
        Name of its user -> address and size.
    areas : dict of int to str
        Start of each refill -> name of its area.
    """

    free: list[tuple[int, int]] = field(default_factory=list)
    pieces: dict[str, tuple[int, int]] = field(default_factory=dict)
    areas: dict[int, str] = field(default_factory=dict)


def has_cache(kernel: Kernel) -> bool:
    """Whether text comes from the cache."""
    return kernel.rules.release.follows("rox-cache") and kernel.geometry.name.startswith("x86-64")


def own_area(
    kernel: Kernel, name: str, size_bytes: int, caller: str, *, huge: bool = False, reset: bool = True
) -> Area | None:
    """An area in module space, writable; it resets the direct map when freed (`module_alloc`)."""
    request = Request(size_bytes, allow_huge=huge, no_huge=not huge)
    return kernel.vmalloc(name, request, caller, within=kernel.maps.space.modules, reset=reset)


def make_rox(kernel: Kernel, name: str, first_page: int = 0, pages: int | None = None) -> bool:
    """Make pages read-only and executable: in one call since 6.2 (from memory), in two before."""
    if (kernel.rules.release.major, kernel.rules.release.minor) >= (6, 2):
        return kernel.set_memory(name, "rox", first_page, pages)
    return kernel.set_memory(name, "ro", first_page, pages) and kernel.set_memory(
        name, "x", first_page, pages
    )


def own_text(kernel: Kernel, name: str, size_bytes: int, caller: str) -> bool:
    """An area of its own for code, read-only and executable; False if there is no memory for it."""
    if own_area(kernel, name, size_bytes, caller) is None:
        return False
    done = make_rox(kernel, name)
    if not done:
        kernel.vfree(name)
    return done


def take_text(kernel: Kernel, name: str, size_bytes: int, caller: str) -> bool:
    """Get memory for code that will be read-only and executable; False if there is none.

    Without the cache it is an area of its own. With it, it is a piece that is read-only and executable from
    the start, first fit from the lowest address; a refill is rounded up to PMDs, or of the plain size if
    there is not so much.
    """
    if not has_cache(kernel):
        return own_text(kernel, name, size_bytes, caller)
    cache, size = kernel.part(TextMemory), round_up(size_bytes, kernel.page_bytes)
    fit = next((piece for piece in cache.free if piece[1] >= size), None)
    if fit is None:
        fit = _refill(kernel, cache, size)
        if fit is None:
            return False
    cache.free.remove(fit)
    if fit[1] > size:
        insort(cache.free, (fit[0] + size, fit[1] - size))
    cache.pieces[name] = fit[0], size
    return True


def _refill(kernel: Kernel, cache: TextMemory, size: int) -> tuple[int, int] | None:
    name = f"text cache {kernel.counts['text_refills']}"
    area = own_area(kernel, name, round_up(size, PMD_BYTES), "execmem_cache", huge=True, reset=False)
    area = area or own_area(kernel, name, size, "execmem_cache", huge=True, reset=False)
    if area is None:
        return None
    kernel.counts["text_refills"] += 1
    kernel.set_memory(name, "rox")
    cache.areas[area.start] = name
    piece = area.start, area.size_bytes
    insort(cache.free, piece)
    return piece


def give_text(kernel: Kernel, name: str) -> None:
    """Free code: its area, or its piece (made writable, filled with traps, read-only executable again)."""
    cache = kernel.part(TextMemory)
    if name not in cache.pieces:
        kernel.vfree(name)
        return
    start, size = cache.pieces.pop(name)
    holder = max(at for at in cache.areas if at <= start)
    area = kernel.areas[cache.areas[holder]]
    first, pages = (start - area.start) // kernel.page_bytes, size // kernel.page_bytes
    kernel.set_memory(area.name, "rw", first, pages)
    kernel.set_memory(area.name, "rox", first, pages)
    for low, length in [p for p in cache.free if p[0] + p[1] == start or p[0] == start + size]:
        cache.free.remove((low, length))
        start, size = min(start, low), size + length
    if (start, size) == (area.start, area.size_bytes) and not size % PMD_BYTES and not start % PMD_BYTES:
        del cache.areas[area.start]
        kernel.maps.validate(area)
        kernel.vfree(area.name)
    else:
        insort(cache.free, (start, size))
