"""Kernel releases as terminal tables: what changed when, or every rule of one with its source.

Rich is imported when a table is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.memory.maps import full_flush_above
from pagewalk.linux.rules.callers import CALLERS
from pagewalk.linux.rules.eligibility import Kernel, ioremap_limit
from pagewalk.linux.rules.hooks import ARCHES
from pagewalk.linux.rules.releases import BOUNDARIES, NEWEST, RULES, Release, release
from pagewalk.report.words import size

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {
    "src": "read in the source",
    "mail": "read in the named mail",
    "live": "seen on a running kernel",
    "derived": "worked out from such",
    "recall": "partly from memory",
}


def facts(of: Release) -> dict[str, object]:
    """All we know of a release, as plain data for JSON."""
    return {
        "release": of.name,
        "rules": [
            {
                "key": rule.key,
                "what": rule.what,
                "since": rule.since,
                "until": rule.until,
                "source": rule.source,
                "mark": rule.mark,
            }
            for rule in RULES
            if rule.holds_in(of)
        ],
        "architectures": [
            {
                "name": arch.name,
                "base_page_bytes": 1 << arch.base_shift,
                "huge_vmalloc": arch.huge_in(of),
                "leaf_bytes": _leaf_bytes(arch.name, of),
                "source": arch.source,
                "mark": arch.mark,
            }
            for arch in ARCHES.values()
        ],
        "callers": [
            {"what": c.what, "asks": _asks(c.since, c.absent, of), "how": c.how, "source": c.source}
            for c in CALLERS
        ],
    }


def _leaf_bytes(name: str, of: Release) -> list[int]:
    """Leaf sizes above the base page that vmalloc makes there."""
    arch = ARCHES[name]
    if not arch.huge_in(of):
        return []
    blocks = arch.pte_shifts if arch.pte_hook_in(of) and of.follows("pte-sizes") else ()
    return [1 << shift for shift in (*blocks, arch.pmd_shift) if shift]


def _asks(since: str, absent: str, of: Release) -> str:
    """Yes, no or unknown."""
    if not of.follows("opt-in"):
        return "yes" if of.follows("huge") else "no"
    if release(since) <= of:
        return "yes"
    return "no" if not absent or of <= release(absent) else "unknown"


def show_list(console: Console | None = None) -> None:
    """Print what each release began and stopped doing."""
    from rich.console import Console
    from rich.table import Table

    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("release", no_wrap=True)
    table.add_column("from then on")
    for name in BOUNDARIES:
        table.add_row(name, "\n".join(_changes(name)) or "as before; its source was read")
    console.print(table)
    console.print(f"\nv8 is the series as posted in November 2020. After {NEWEST}: as {NEWEST}.")
    console.print("pagewalk kernels RELEASE shows every rule of one release with its source.")


def _changes(name: str) -> list[str]:
    """What begins and ends with a release."""
    begins = [rule.what for rule in RULES if rule.since == name]
    ends = [f"no longer: {rule.what}" for rule in RULES if rule.until == name]
    arches = [arch.name for arch in ARCHES.values() if arch.huge_since == name]
    blocks = [
        f"{arch.name} ({', '.join(size(1 << shift) for shift in arch.pte_shifts)})"
        for arch in ARCHES.values()
        if arch.pte_since == name and arch.pte_shifts
    ]
    callers = [c.what for c in CALLERS if c.since == name and not c.absent]
    return [
        *begins,
        *ends,
        *([f"huge vmalloc on {', '.join(arches)}"] if arches else []),
        *([f"blocks of PTEs on {', '.join(blocks)}"] if blocks else []),
        *([f"asked for by {', '.join(callers)}"] if callers else []),
    ]


def show(of: Release, console: Console | None = None) -> None:
    """Print all rules of a release, the architectures and who asks for huge vmalloc, with sources."""
    from rich.console import Console

    console = console or Console(highlight=False)
    if of > release(NEWEST):
        console.print(f"Newer than the sources that were read: these are the rules of {NEWEST}.\n")
    rules = [
        (rule.key, rule.what, f"since {rule.since}, {MARKS[rule.mark]}: {rule.source}")
        for rule in RULES
        if rule.holds_in(of)
    ]
    _print(f"Rules of Linux {of.name}", rules, console)
    arches: dict[tuple[str, str], list[str]] = {}
    for arch in ARCHES.values():
        larger = " and ".join(size(leaf) for leaf in _leaf_bytes(arch.name, of))
        what = f"{size(1 << arch.base_shift)}; {larger}" if larger else "base pages only"
        arches.setdefault((what, f"{MARKS[arch.mark]}: {arch.source}"), []).append(arch.name)
    rows = [("\n".join(names), what, source) for (what, source), names in arches.items()]
    _print("Leaf sizes of vmalloc", rows, console)
    callers = [
        (_asks(c.since, c.absent, of), f"{c.what}: {c.how}", f"{MARKS[c.mark]}: {c.source}") for c in CALLERS
    ]
    _print("Who asks for huge vmalloc", callers, console)
    _print("Devices (ioremap) and flushes of kernel addresses", _devices_and_flushes(of), console)
    console.print("Where the model has each rule, and which test shows it: docs/rules.md")


def _devices_and_flushes(of: Release) -> list[tuple[str, str, str]]:
    """The largest leaf of ioremap, and from how many base pages on a flush is a full one."""
    names: dict[str, list[str]] = {}
    for name, arch in ARCHES.items():
        if name in GEOMETRIES:
            pages = full_flush_above(GEOMETRIES[name], of, tlb_range=False)
            flush = f"above {pages:,} pages a full flush" if pages else "every flush is a full one"
            largest = size(1 << ioremap_limit(Kernel(of, arch)))
            names.setdefault(f"leaves up to {largest}; {flush}", []).append(name)
    source = f"{MARKS['src']}: 6.1.176 and 7.3.4, arch/*/include/asm"
    return [("\n".join(rows), what, source) for what, rows in names.items()]


def _print(title: str, rows: list[tuple[str, str, str]], console: Console) -> None:
    """A heading and rows of: name, what, and the source below it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, what, source in rows:
        table.add_row(name, Text.assemble(what, "\n", (source, "dim")))
    console.print(table)
    console.print()
