"""Probes: kprobes keep copied instructions in shared pages, each ftrace trampoline takes pages of its own.

Source: the reference's section 4.6 (they come from module space, or from the cache since 6.15); slot size
and one page for a trampoline are from memory of kernel/kprobes.c and arch/x86/kernel/ftrace.c.
"""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from pagewalk.errors import BadInput
from pagewalk.linux.executable.text import give_text, take_text
from pagewalk.linux.memory.kernel import Event, Kernel, happen

SLOT_BYTES = 16
"""Of one kprobe: the longest x86 instruction, rounded up (MAX_INSN_SIZE)."""


class AddKprobes(Event, frozen=True, tag="add_kprobes"):
    """Set `count` kprobes."""

    name: str
    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class RemoveKprobes(Event, frozen=True, tag="remove_kprobes"):
    """Remove what `AddKprobes` of that name set."""

    name: str


class AddTrampoline(Event, frozen=True, tag="add_trampoline"):
    """Create an ftrace trampoline of `size` bytes."""

    name: str
    size: Annotated[int, Meta(ge=1)] = 512


class RemoveTrampoline(Event, frozen=True, tag="remove_trampoline"):
    """Free a trampoline."""

    name: str


@dataclass
class Probes:
    """Probes set: pages with the name of each slot's user, and the names of trampolines."""

    pages: dict[str, list[str]] = field(default_factory=dict)
    trampolines: set[str] = field(default_factory=set)


@happen.register
def _add(event: AddKprobes, kernel: Kernel) -> None:
    pages = kernel.part(Probes).pages
    if any(event.name in slots for slots in pages.values()):
        raise BadInput(f"kprobes {event.name!r}", "are set already", "remove them first")
    fit = kernel.page_bytes // SLOT_BYTES
    for _ in range(event.count):
        page = next((name for name, slots in pages.items() if len(slots) < fit), None)
        if page is None:
            page = f"kprobes {kernel.counts['kprobe_pages']}"
            if not take_text(kernel, page, kernel.page_bytes, "alloc_insn_page"):
                raise BadInput(f"kprobes {event.name!r}", "there is no memory for them", "set fewer")
            kernel.counts["kprobe_pages"] += 1
            pages[page] = []
        pages[page].append(event.name)


@happen.register
def _remove(event: RemoveKprobes, kernel: Kernel) -> None:
    pages = kernel.part(Probes).pages
    if not any(event.name in slots for slots in pages.values()):
        raise BadInput(f"kprobes {event.name!r}", "are not set", "set them first")
    for page, slots in list(pages.items()):
        pages[page] = [name for name in slots if name != event.name]
        if not pages[page]:
            del pages[page]
            give_text(kernel, page)


@happen.register
def _trampoline(event: AddTrampoline, kernel: Kernel) -> None:
    trampolines = kernel.part(Probes).trampolines
    if event.name in trampolines:
        raise BadInput(f"trampoline {event.name!r}", "exists already", "remove it first")
    if not take_text(kernel, f"trampoline {event.name}", event.size, "create_trampoline"):
        raise BadInput(f"trampoline {event.name!r}", "there is no memory for it", "remove others")
    trampolines.add(event.name)


@happen.register
def _no_trampoline(event: RemoveTrampoline, kernel: Kernel) -> None:
    trampolines = kernel.part(Probes).trampolines
    if event.name not in trampolines:
        raise BadInput(f"trampoline {event.name!r}", "does not exist", "add it first")
    trampolines.remove(event.name)
    give_text(kernel, f"trampoline {event.name}")
