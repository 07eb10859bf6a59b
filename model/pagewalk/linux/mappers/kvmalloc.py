"""kvmalloc: one block of the direct map if it can be had, else an area.

Source: Linux 7.3 `__kvmalloc_node_noprof`, `kmalloc_gfp_adjust` (6.1 mm/util.c `kvmalloc_node`), see the
reference's section 3.2; sizes in whole blocks from `___kmalloc_large_node`, from memory. Up to two pages
kmalloc has slabs, which are not modelled: whole pages are taken here.
"""

from pagewalk.errors import BadInput
from pagewalk.linux.memory.kernel import Event, Kernel, happen
from pagewalk.linux.memory.pages import Pages, free_pages, try_pages
from pagewalk.linux.rules.eligibility import Request

INT_MAX = (1 << 31) - 1
"""More bytes than this fail without a try of vmalloc (reference 8)."""


class Kvmalloc(Event, frozen=True, tag="kvmalloc"):
    """Allocate `size` bytes: by kmalloc, else by vmalloc, which may then map them huge.

    `may_block` false is GFP_ATOMIC, GFP_NOWAIT.
    """

    name: str
    size: int
    node: int | None = None
    may_block: bool = True
    caller: str = ""
    cpu: int = 0


class Kvfree(Event, frozen=True, tag="kvfree"):
    """Free what `Kvmalloc` of that name allocated."""

    name: str


@happen.register
def _kvmalloc(event: Kvmalloc, kernel: Kernel) -> None:
    """Without a free block it is vmalloc: for more than a page, kmalloc neither reclaims nor compacts."""
    if event.name in kernel.areas or event.name in kernel.part(Pages).blocks:
        raise BadInput(f"kvmalloc {event.name!r}", "exists already", "free it first, or use another name")
    if event.size <= 0:
        kernel.note("failure", "a size of 0 is refused")
        return
    pages = -(-event.size // kernel.page_bytes)
    order = (pages - 1).bit_length()
    caller = event.caller or event.name
    if order <= kernel.memory.orders.largest and try_pages(
        kernel, event.name, event.size, order=order, node=event.node, caller=caller
    ):
        return
    if event.size <= kernel.page_bytes or event.size > INT_MAX:
        kernel.note("failure", f"kvmalloc of {event.size} bytes has no vmalloc to fall back on")
        return
    kernel.counts["kvmalloc_areas"] += 1
    huge = event.may_block or not kernel.rules.release.follows("huge-if-it-may-block")
    kernel.vmalloc(event.name, Request(event.size, node=event.node, allow_huge=huge), caller, cpu=event.cpu)


@happen.register
def _kvfree(event: Kvfree, kernel: Kernel) -> None:
    if event.name in kernel.part(Pages).blocks:
        free_pages(kernel, event.name)
    else:
        kernel.vfree(event.name)
