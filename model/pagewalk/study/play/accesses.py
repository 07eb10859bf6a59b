"""From an access event to addresses: where what it touches lies now, and which bytes of it are touched."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.executable.bpf import CHUNK_BYTES, Programs
from pagewalk.linux.executable.modules import Modules
from pagewalk.linux.executable.text import TextMemory
from pagewalk.linux.memory.kernel import Kernel
from pagewalk.linux.memory.pages import Pages
from pagewalk.study.play.steps import Access, Touch
from pagewalk.trace.synth.generate import generated
from pagewalk.trace.synth.kinds import Sequential, Synthetic, Uniform, Zipf
from pagewalk.trace.trace import FETCH, KERNEL, STORE

WORD_LOG2 = 3
"""Every access is of 8 bytes."""


class Place(NamedTuple):
    """Where something lies.

    Attributes
    ----------
    start : int
        First address; -1 where only the direct map has it.
    size_bytes : int
        What was asked for.
    frames : ndarray of int64
        Of each base page, for its addresses in the direct map.
    """

    start: int
    size_bytes: int
    frames: NDArray[np.int64]


def find(kernel: Kernel, name: str) -> Place:
    """Where an area, pages, the text of a module, or the first image of BPF programs lies.

    Raises
    ------
    BadInput
        Nothing has that name now.
    """
    if name in kernel.areas:
        area = kernel.areas[name]
        return Place(area.start, area.asked_bytes, area.frames)
    blocks = kernel.part(Pages).blocks
    if name in blocks:
        return Place(-1, blocks[name].size_bytes, blocks[name].frames)
    loaded = kernel.part(Modules).loaded
    if name in loaded:
        section = next(section for section in loaded[name] if section.kind == "text")
        return _text(kernel, section.area, section.first_page, section.pages * kernel.page_bytes)
    programs = kernel.part(Programs).loaded
    if name in programs:
        holder, first, chunks = programs[name][0]
        whole = _text(kernel, holder, 0, 0)
        size = chunks * CHUNK_BYTES or whole.size_bytes
        return Place(whole.start + first * CHUNK_BYTES, size, whole.frames[:0])
    raise BadInput(f"what = {name!r}", "nothing has that name now", "allocate it before it is accessed")


def _text(kernel: Kernel, holder: str, first_page: int, size: int) -> Place:
    """Text in an area of its own, from a page on, or a piece of the cache."""
    if holder in kernel.areas:
        area, skip = kernel.areas[holder], first_page * kernel.page_bytes
        return Place(area.start + skip, size or area.asked_bytes, area.frames[:0])
    start, length = kernel.part(TextMemory).pieces[holder]
    return Place(start, size or length, np.zeros(0, np.int64))


def addresses(kernel: Kernel, event: Access, seed: int) -> NDArray[np.uint64]:
    """Addresses that an access event touches, in order.

    Parameters
    ----------
    kernel : Kernel
    event : Access
    seed : int
        Of all that is random in it.

    Returns
    -------
    ndarray of uint64, shape (rounds, accesses of a round)
    """
    columns = []
    for number, touch in enumerate(event.touch):
        place = find(kernel, touch.what)
        size = min(touch.size, place.size_bytes) if touch.size else place.size_bytes
        offset = _offsets(touch, size, event.rounds * touch.times, seed * 128 + number)
        if place.start >= 0 and not touch.direct:
            at = offset + np.uint64(place.start)
        elif len(place.frames):
            shift, inside = np.uint64(kernel.shift), np.uint64(kernel.page_bytes - 1)
            frame = place.frames[(offset >> shift).astype(np.int64)].astype(np.uint64)
            at = np.uint64(kernel.maps.direct.start) + (frame << shift) + (offset & inside)
        else:
            raise BadInput(
                f"what = {touch.what!r}", "has no addresses in the direct map here", "leave out `direct`"
            )
        columns.append(at.reshape(event.rounds, touch.times))
    return np.concatenate(columns, axis=1)


def _offsets(touch: Touch, size: int, count: int, seed: int) -> NDArray[np.uint64]:
    if touch.pattern == "same":
        return np.zeros(count, np.uint64)
    if size < 1 << WORD_LOG2 or (touch.pattern == "zipf" and size < 4096):
        raise BadInput(f"what = {touch.what!r}", f"{size} bytes are too few", "touch more of them")
    kinds: dict[str, type[Synthetic]] = {"uniform": Uniform, "zipf": Zipf, "sequential": Sequential}
    common = {"accesses": count, "seed": seed, "base": 0}
    kind = kinds[touch.pattern](size=size, **common)  # type: ignore[call-arg]
    parts = [chunk.address for chunk in generated(kind).read(1 << 20)]
    return np.concatenate(parts)


def flags(event: Access) -> NDArray[np.uint8]:
    """Flags of the accesses of one round."""
    kinds = [
        WORD_LOG2 | KERNEL | (STORE if touch.store else 0) | (FETCH if touch.fetch else 0)
        for touch in event.touch
        for _ in range(touch.times)
    ]
    return np.array(kinds, np.uint8)
