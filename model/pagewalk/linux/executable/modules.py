"""Kernel modules: sections, and what their permissions do over a module's life.

Sources: Linux 5.17 kernel/module.c (one area for the module, one for its init part) and 6.4 and later
kernel/module/ (one area for each kind of section), both from memory; permissions and the reset on free: the
reference's sections 4.1 and 4.6.
"""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from pagewalk.errors import BadInput
from pagewalk.linux.executable.text import give_text, has_cache, make_rox, own_area, take_text
from pagewalk.linux.memory.kernel import Event, Kernel, happen
from pagewalk.linux.memory.maps import Permission
from pagewalk.linux.rules.eligibility import round_up

Size = Annotated[int, Meta(ge=0)]

CORE = ("text", "rodata", "ro_after_init", "data")
INIT = ("init_text", "init_rodata", "init_data")


class LoadModule(Event, frozen=True, tag="load_module"):
    """Load a module, up to the point where its init function runs. Sizes are in bytes.

    `huge` is what no kernel does to a module: let it have PMD leaves, as the opt-out of 5.13 would have for
    callers that did not think of it.
    """

    name: str
    text: Size
    rodata: Size = 0
    ro_after_init: Size = 0
    data: Size = 0
    init_text: Size = 0
    init_rodata: Size = 0
    init_data: Size = 0
    huge: bool = False


class InitDone(Event, frozen=True, tag="init_done"):
    """The init function returned: what is read-only after init becomes so, the init part is freed."""

    name: str


class UnloadModule(Event, frozen=True, tag="unload_module"):
    """Free a module."""

    name: str


@dataclass(frozen=True)
class Section:
    """A section of a loaded module: `pages` base pages from `first_page` of an area, or text of the cache."""

    kind: str
    area: str
    first_page: int
    pages: int
    cached: bool = False


@dataclass
class Modules:
    """Loaded modules: name -> sections."""

    loaded: dict[str, list[Section]] = field(default_factory=dict)


def _place(kernel: Kernel, event: LoadModule) -> list[Section]:
    """Allocate its areas: before 6.4 one for what stays and one for init, since then one for each kind."""
    pages = {
        kind: round_up(getattr(event, kind), kernel.page_bytes) // kernel.page_bytes for kind in CORE + INIT
    }
    release = (kernel.rules.release.major, kernel.rules.release.minor)
    groups = [CORE, INIT] if release < (6, 4) else [(kind,) for kind in CORE + INIT]
    sections: list[Section] = []
    for group in groups:
        first, name = 0, f"{event.name} {'core' if group == CORE else 'init' if group == INIT else group[0]}"
        total = sum(pages[kind] for kind in group)
        if not total:
            continue
        cached = has_cache(kernel) and group[0] in ("text", "init_text") and not event.huge
        size = total * kernel.page_bytes
        if cached:
            placed = take_text(kernel, name, size, "load_module")
        else:
            placed = own_area(kernel, name, size, "load_module", huge=event.huge) is not None
        if not placed:
            _free(kernel, sections)
            raise BadInput(
                f"module {event.name!r}", "there is no memory for it", "load less, or give more memory"
            )
        for kind in group:
            if pages[kind]:
                sections.append(Section(kind, name, first, pages[kind], cached))
                first += pages[kind]
    return sections


@happen.register
def _load(event: LoadModule, kernel: Kernel) -> None:
    """`complete_formation`: text read-only and executable, rodata read-only, data not executable."""
    modules = kernel.part(Modules)
    if event.name in modules.loaded:
        raise BadInput(f"module {event.name!r}", "is loaded already", "unload it first")
    modules.loaded[event.name] = _place(kernel, event)
    for section in modules.loaded[event.name]:
        if section.cached:
            continue
        if section.kind.endswith("text"):
            make_rox(kernel, section.area, section.first_page, section.pages)
            continue
        steps: tuple[Permission, ...] = ("ro", "nx") if section.kind.endswith("rodata") else ("nx",)
        for what in steps:
            kernel.set_memory(section.area, what, section.first_page, section.pages)


@happen.register
def _init_done(event: InitDone, kernel: Kernel) -> None:
    sections = _sections(kernel, event.name)
    for section in sections:
        if section.kind == "ro_after_init":
            kernel.set_memory(section.area, "ro", section.first_page, section.pages)
    kernel.part(Modules).loaded[event.name] = [s for s in sections if s.kind in CORE]
    _free(kernel, [s for s in sections if s.kind in INIT])


@happen.register
def _unload(event: UnloadModule, kernel: Kernel) -> None:
    _free(kernel, _sections(kernel, event.name))
    del kernel.part(Modules).loaded[event.name]


def _sections(kernel: Kernel, name: str) -> list[Section]:
    loaded = kernel.part(Modules).loaded
    if name not in loaded:
        raise BadInput(f"module {name!r}", "is not loaded", "load it first")
    return loaded[name]


def _free(kernel: Kernel, sections: list[Section]) -> None:
    for area in dict.fromkeys(section.area for section in sections):
        give_text(kernel, area)
