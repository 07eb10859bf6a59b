"""A plan as terminal tables: what to do first, then what it rests on; a fleet as one table.

Rich is imported when a table is made. It knows the terminal's width and obeys ``NO_COLOR``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pagewalk.report.sure import of_machine
from pagewalk.report.words import difference, number, shorten, size
from pagewalk.study.planning.areas import CallerPlan
from pagewalk.study.planning.fleet import Fleet
from pagewalk.study.planning.gain import Gain
from pagewalk.study.planning.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

STANDINGS = {
    "huge": "PMD leaves",
    "perhaps": "may have PMD leaves",
    "refused": "asks, has base pages",
    "could": "could have PMD leaves",
    "vet": "could, if it bears them",
    "never": "cannot",
}
"""How a standing is said (`pagewalk.study.planning.areas.Standing`)."""

HUGE, COULD = ("huge", "perhaps"), ("could", "vet", "refused")
"""Standings of areas that have or may have PMD leaves, and of those that could have them."""

TABLES, NARROW = 6, 74
"""Hash tables shown; columns below which tables leave out what pages and JSON tell."""

UNLIMITED = 1 << 12
"""Columns that no table has."""


def heading(plan: Plan) -> str:
    """The machine in one line."""
    memory = size(plan.memory_bytes) if plan.memory_bytes else "unknown memory"
    nodes = f"{plan.nodes} node" + ("s" if plan.nodes > 1 else "")
    name = f"{plan.host}: " if plan.host else ""
    return f"{name}Linux {plan.kernel}, {plan.architecture}, {memory}, {nodes}, {plan.processor}"


def verdict(plan: Plan) -> str:
    """The answer in one sentence."""
    todo = [one for one in plan.recommendations if one.action not in ("leave", "watch")]
    if not todo:
        watch = [one for one in plan.recommendations if one.action == "watch"]
        return f"Change nothing{', but watch ' + watch[0].subject if watch else ''}."
    first = todo[0]
    more = f" ({len(todo) - 1} more below)" if len(todo) > 1 else ""
    return f"{first.subject}: {first.what[0].lower()}{first.what[1:]}{more}."


def saving(gain: Gain | None) -> str:
    """Walk cycles that PMD leaves save, for one access."""
    if gain is None:
        return "?"
    return "0" if not gain.saved else number(gain.saved, 2)


def waste(caller: CallerPlan) -> str:
    """Rounding: a figure, or its bounds."""
    if caller.waste_low == caller.waste_high:
        return size(caller.waste_high) if caller.waste_high else "0"
    return f"{size(caller.waste_low) if caller.waste_low else '0'} to {size(caller.waste_high)}"


def show(plan: Plan, console: Console | None = None) -> None:
    """Print a plan to `console`, or to standard output."""
    from rich.console import Console

    console = console or Console(highlight=False, soft_wrap=False)
    for part in _parts(plan, console.width):
        console.print(part, highlight=False)


def text(plan: Plan, width: int = 80) -> str:
    """What `show` prints, without colours, `width` columns wide."""
    from rich.console import Console

    file = io.StringIO()
    show(plan, Console(file=file, width=width, color_system=None, force_terminal=False))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def show_fleet(fleet: Fleet, console: Console | None = None) -> None:
    """Print a row for each machine of a fleet, or a sentence where rows are wider than the console."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False, soft_wrap=False)
    table = _table("machine", *FLEET)
    for plan in fleet.plans:
        table.add_row(Text(plan.host), *fleet_row(plan))
    without_limit = console.options.update(max_width=UNLIMITED)
    rows = console.measure(table, options=without_limit).maximum <= console.width
    if rows:
        console.print(table)
    for plan in fleet.plans:
        if not rows:
            said = ", ".join(f"{name} {cell}" for name, cell in zip(FLEET, fleet_row(plan), strict=True))
            console.print(Text.assemble("\n", (plan.host, "bold"), f": {said}."))
        console.print(Text(f"\n{plan.host}: {verdict(plan)}" if rows else verdict(plan)))


FLEET = "Linux", "memory", "nodes", "PMD leaves", "could have", "direct map 4K", "free in PMDs"
"""What `fleet_row` tells."""


def fleet_row(plan: Plan) -> list[str]:
    """A machine of a fleet as cells."""
    direct, blocks = plan.direct_map, plan.blocks
    return [
        plan.kernel,
        size(plan.memory_bytes) if plan.memory_bytes else "?",
        str(plan.nodes),
        total([plan], *HUGE),
        total([plan], *COULD),
        f"{100 * direct.share_of_base_pages:.1f} %" if direct else "?",
        f"{100 * (1 - blocks.unusable):.0f} %" if blocks else "?",
    ]


def total(plans: Iterable[Plan], *standings: str) -> str:
    """Bytes of all callers of these standings on the machines that tell of areas; "?" if none does."""
    callers = [plan.callers for plan in plans if plan.callers is not None]
    if not callers:
        return "?"
    return size(sum(one.bytes for those in callers for one in those if one.standing in standings))


def _table(first: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column(first, header_style="bold", overflow="fold", min_width=min(len(first), 28))
    for name in columns:
        table.add_column(name, justify="right", header_style="", no_wrap=True)
    return table


def _parts(plan: Plan, width: int) -> Iterable[RenderableType]:
    from rich.text import Text

    yield Text(heading(plan), style="dim")
    yield Text(f"\n{verdict(plan)}\n", style="bold")
    yield _recommendations(plan)
    if plan.callers:
        yield ""
        yield _callers(plan, width)
    if plan.tables:
        yield ""
        yield _tables(plan, width)
    yield Text("\n" + "\n".join(facts(plan)))
    yield Text("\n" + "\n".join(f"- {line}" for line in notes(plan)), style="dim")


def _recommendations(plan: Plan) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(ratio=1, overflow="fold")
    for place, one in enumerate(plan.recommendations, 1):
        price = f" [{difference(0, one.saved_bytes).replace('+', 'saves ').replace('-', 'costs ')}]"
        body = Text.assemble(
            (f"{one.subject}: ", "bold"),
            f"{one.what}. ",
            (f"{one.why[0].upper()}{one.why[1:]}.", "dim"),
            (price if one.saved_bytes else "", "dim"),
        )
        grid.add_row(f"{place}.", body)
    return grid


def _callers(plan: Plan, width: int) -> Table:
    wide, narrow = width >= 110, width < NARROW
    table = _table(
        "areas of a PMD and more",
        *(["areas"] if wide else []),
        "size",
        "STLB entries",
        *(["tables saved"] if wide else []),
        *([] if narrow else ["rounding"]),
        "cycles saved\nan access",
    )
    for one in plan.callers or []:
        table.add_row(
            f"{shorten(one.caller, 28)}\n  {STANDINGS[one.standing]}",
            *([str(one.areas)] if wide else []),
            size(one.bytes),
            f"{one.base_pages:,} to {one.pmd_leaves:,}",
            *([size(one.page_tables_saved)] if wide else []),
            *([] if narrow else [waste(one)]),
            saving(plan.gains.get(one.caller)) if one.standing != "never" else "",
        )
    return table


def _tables(plan: Plan, width: int) -> Table:
    shown, narrow = plan.tables[:TABLES], width < NARROW
    told_by = [] if narrow else ["told by"]
    table = _table(
        "boot hash tables" if narrow else "largest boot hash tables", "size", "where", *told_by, "set by"
    )
    for one in shown:
        where = one.place or "?"
        table.add_row(
            one.name,
            size(one.bytes),
            "direct map" if where == "linear" else where,
            *([] if narrow else [one.told_by]),
            one.parameter or "-",
        )
    return table


def notes(plan: Plan) -> list[str]:
    """What was assumed, what is not known, and how far the processor is from measurements."""
    return [*plan.assumptions, of_machine(plan.processor)] if plan.gains else plan.assumptions


def facts(plan: Plan) -> list[str]:
    """Direct map, free blocks and churn, a line each; what is not known is left out (the notes say it)."""
    said = []
    if direct := plan.direct_map:
        leaves = ", ".join(f"{name} {size(amount)}" for name, amount in direct.bytes_by_leaf.items())
        said.append(
            f"direct map: {leaves}; {direct.leaves:,} leaves, {size(direct.page_tables)} of lowest tables"
        )
    if blocks := plan.blocks:
        free = ", ".join(f"node {node} {count:,}" for node, count in blocks.free.items())
        stalls = ", ".join(f"{name} {count:,}" for name, count in blocks.compaction.items())
        said.append(
            f"free blocks of order {blocks.order}: {free} ({100 * (1 - blocks.unusable):.0f} % of "
            f"{size(blocks.free_bytes)} free)" + (f"; since boot {stalls}" if stalls else "")
        )
    if churn := plan.churn:
        said.append(
            f"in {churn.seconds:.3g} s of trace events: areas allocated {churn.allocations:,}, large ones "
            f"{churn.large:,}, of which fell back {churn.fallbacks:,}; freed {churn.frees:,}; "
            f"flushes on all CPUs {churn.purges:,}"
        )
    if (small := plan.small) and small.below_a_pmd:
        said.append(
            f"too small for a PMD: {small.below_a_pmd:,} areas, {size(small.below_a_pmd_bytes)}; vmap, "
            f"ioremap and others: {small.other_kinds:,}, {size(small.other_kinds_bytes)}; freed, waiting for "
            f"their flush: {small.unpurged:,}, {size(small.unpurged_bytes)}"
        )
    return said
