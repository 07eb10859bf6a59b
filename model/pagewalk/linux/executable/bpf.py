"""BPF programs: an area for each image (until 5.17), or shared packs (since 5.18).

Source: the reference's section 4.6; the search for room in a pack (lowest free chunks of the first pack
that has enough) is from memory of kernel/bpf/core.c `bpf_prog_pack_alloc`. Packs of 7.3 come from the text
cache; a pack of 6.18 was still seen as an area of its own, so releases between are taken to do the same.
"""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from pagewalk.errors import BadInput
from pagewalk.linux.executable.text import give_text, has_cache, own_text, take_text
from pagewalk.linux.geometry import MIB
from pagewalk.linux.memory.kernel import Event, Kernel, happen
from pagewalk.linux.rules.eligibility import round_up

CHUNK_BYTES = 64
"""A pack is handed out in pieces of this."""

PACK_BYTES = 2 * MIB
"""For each NUMA node, of one pack; architectures without packs take one page."""


class LoadBpf(Event, frozen=True, tag="load_bpf"):
    """Load programs: `images` of `size` bytes each."""

    name: str
    size: Annotated[int, Meta(ge=1)]
    images: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class UnloadBpf(Event, frozen=True, tag="unload_bpf"):
    """Free what `LoadBpf` of that name loaded."""

    name: str


@dataclass
class Programs:
    """Loaded programs.

    Attributes
    ----------
    loaded : dict of str to list of tuple
        Name -> for each image what holds it, first chunk, and chunks (0: it is alone there).
    packs : dict of str to bytearray
        Area of each pack -> for each chunk, whether it is taken.
    """

    loaded: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    packs: dict[str, bytearray] = field(default_factory=dict)


@happen.register
def _load(event: LoadBpf, kernel: Kernel) -> None:
    programs = kernel.part(Programs)
    if event.name in programs.loaded:
        raise BadInput(f"BPF program {event.name!r}", "is loaded already", "unload it first")
    held = programs.loaded[event.name] = []
    for image in range(event.images):
        place = _place(kernel, programs, event.size, f"bpf {event.name} {image}")
        if place is None:
            happen(UnloadBpf(name=event.name), kernel)
            what = f"there is no memory for image {image}"
            raise BadInput(f"BPF program {event.name!r}", what, "load less, or give more memory")
        held.append(place)


def _place(kernel: Kernel, programs: Programs, size: int, name: str) -> tuple[str, int, int] | None:
    """Memory for one image: in a pack if there are packs and it fits one, else of its own."""
    if kernel.rules.release.follows("bpf-pack") and size <= PACK_BYTES * kernel.rules.nodes:
        return _pack(kernel, programs, -(-size // CHUNK_BYTES))
    done = take_text(kernel, name, round_up(size, kernel.page_bytes), "bpf_jit_alloc_exec")
    return (name, 0, 0) if done else None


def _pack(kernel: Kernel, programs: Programs, chunks: int) -> tuple[str, int, int] | None:
    """Room in the first pack that has it, or in a new one, which is made read-only and executable whole."""
    for name, taken in programs.packs.items():
        first = taken.find(bytes(chunks))
        if first >= 0:
            taken[first : first + chunks] = b"\1" * chunks
            return name, first, chunks
    name = f"bpf pack {kernel.counts['bpf_packs']}"
    size = PACK_BYTES * kernel.rules.nodes
    if has_cache(kernel) and (kernel.rules.release.major, kernel.rules.release.minor) < (7, 3):
        made = own_text(kernel, name, size, "bpf_prog_pack_alloc")
    else:
        made = take_text(kernel, name, size, "bpf_prog_pack_alloc")
    if not made:
        return None
    kernel.counts["bpf_packs"] += 1
    programs.packs[name] = bytearray(b"\1" * chunks).ljust(size // CHUNK_BYTES, b"\0")
    return name, 0, chunks


@happen.register
def _unload(event: UnloadBpf, kernel: Kernel) -> None:
    programs = kernel.part(Programs)
    if event.name not in programs.loaded:
        raise BadInput(f"BPF program {event.name!r}", "is not loaded", "load it first")
    for area, first, chunks in programs.loaded.pop(event.name):
        if not chunks:
            give_text(kernel, area)
            continue
        programs.packs[area][first : first + chunks] = bytes(chunks)
        if not any(programs.packs[area]):
            del programs.packs[area]
            give_text(kernel, area)
