"""Users of the direct map: pages that are reached there, and memory that others hold.

Objects of the kernel's heap, page cache, tables in the direct map: all are frames here, taken block by
block. Slabs are not modelled.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.memory.buddy import MOVABLE, UNMOVABLE
from pagewalk.linux.memory.kernel import Event, Kernel, happen


class TakePages(Event, frozen=True, tag="pages"):
    """Take memory that is reached through the direct map, in blocks of 2^`order` base pages.

    `movable` memory (page cache, processes) lies in other pageblocks than the kernel's own.
    """

    name: str
    size: int
    order: int = 0
    movable: bool = False


class FreePages(Event, frozen=True, tag="free_pages"):
    """Free what `TakePages` of that name took."""

    name: str


class HoldMemory(Event, frozen=True, tag="hold_memory"):
    """Somebody takes all memory but so many base pages, until `FreeMemory`."""

    leave_pages: int = 0


class FreeMemory(Event, frozen=True, tag="free_memory"):
    """Free what `HoldMemory` took."""


@dataclass(frozen=True)
class Block:
    """Memory in the direct map.

    Attributes
    ----------
    caller : str
    size_bytes : int
        As asked for.
    frames : ndarray of int64
        Of each base page.
    """

    caller: str
    size_bytes: int
    frames: NDArray[np.int64]


@dataclass
class Pages:
    """Who has which pages of the direct map.

    Attributes
    ----------
    blocks : dict of str to Block
    held : list of int
        First frames of the blocks that `HoldMemory` took.
    """

    blocks: dict[str, Block] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)


def try_pages(
    kernel: Kernel,
    name: str,
    size_bytes: int,
    *,
    order: int | None = None,
    kind: int = UNMOVABLE,
    node: int | None = None,
    caller: str = "",
) -> bool:
    """Take pages; in the largest blocks that it needs where no order is given.

    Returns
    -------
    bool
        False if memory is short: nothing was taken.

    Raises
    ------
    BadInput
        The name is taken.
    """
    blocks = kernel.part(Pages).blocks
    if name in blocks or name in kernel.areas:
        raise BadInput(f"pages {name!r}", "exist already", "free them first, or use another name")
    pages = -(-size_bytes // kernel.page_bytes)
    if order is None:
        order = min((pages - 1).bit_length(), kernel.memory.orders.largest)
    heads: list[int] = []
    for _ in range(-(-pages >> order) if order else pages):
        head = kernel.memory.take(order, kind, node)
        if head is None:
            kernel.memory.give(heads)
            return False
        heads.append(head)
    frames = (np.array(heads, np.int64)[:, None] + np.arange(1 << order)).ravel()
    if order:
        for head in heads:
            kernel.memory.split(head)
    blocks[name] = Block(caller or name, size_bytes, frames)
    return True


def free_pages(kernel: Kernel, name: str) -> None:
    """Free pages.

    Raises
    ------
    BadInput
        There are none of that name, or vmap still shows them.
    """
    blocks = kernel.part(Pages).blocks
    if name not in blocks:
        raise BadInput(f"pages {name!r}", "there are none of that name", "take them first")
    frames = blocks[name].frames
    for area in kernel.areas.values():
        if area.kind == "vmap" and np.isin(area.frames, frames).any():
            raise BadInput(f"pages {name!r}", f"are mapped by vmap {area.name!r}", "vunmap that first")
    del blocks[name]
    kernel.memory.give(frames.tolist())


@happen.register
def _take(event: TakePages, kernel: Kernel) -> None:
    kind = MOVABLE if event.movable else UNMOVABLE
    if not try_pages(kernel, event.name, event.size, order=event.order, kind=kind):
        what = f"no block of {kernel.page_bytes << event.order} bytes is free"
        raise BadInput(f"pages {event.name!r}", what, "take less, or give more memory")


@happen.register
def _free(event: FreePages, kernel: Kernel) -> None:
    free_pages(kernel, event.name)


@happen.register
def _hold(event: HoldMemory, kernel: Kernel) -> None:
    held = kernel.part(Pages).held
    for order in reversed(range(kernel.memory.orders.largest + 1)):
        while kernel.memory.free_frames() - event.leave_pages >= 1 << order:
            head = kernel.memory.take(order, MOVABLE)
            if head is None:
                break
            held.append(head)


@happen.register
def _give_back(event: FreeMemory, kernel: Kernel) -> None:
    held = kernel.part(Pages).held
    kernel.memory.give(held)
    held.clear()
