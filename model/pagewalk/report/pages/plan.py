"""A plan, or the plans of a fleet, as one page."""

from __future__ import annotations

from typing import NamedTuple

from pagewalk.report.pages.html import Cell, bars, render
from pagewalk.report.studies.plan import (
    COULD,
    HUGE,
    STANDINGS,
    facts,
    fleet_row,
    heading,
    notes,
    saving,
    total,
    verdict,
    waste,
)
from pagewalk.report.words import difference, number, size
from pagewalk.study.planning.fleet import Fleet
from pagewalk.study.planning.plan import Plan


class Advice(NamedTuple):
    """A recommendation as shown."""

    subject: str
    what: str
    why: str
    action: str
    cycles: str
    memory: str


class CallerRow(NamedTuple):
    """A caller as shown."""

    name: str
    standing: str
    why: str
    cells: list[Cell]
    tables: str
    waste: str
    cycles: str


class View(NamedTuple):
    """A plan as shown."""

    anchor: str
    host: str
    heading: str
    verdict: str
    advice: list[Advice]
    callers: list[CallerRow]
    tables: list[list[str]]
    facts: list[str]
    assumptions: list[str]


def plan_page(plan: Plan) -> str:
    """One machine's plan as HTML. The same plan gives the same text."""
    return render(
        "plan.html", title=f"Plan for {plan.host or 'a machine'}", fleet=None, views=[_view(1, plan)]
    )


def fleet_page(fleet: Fleet) -> str:
    """Many machines' plans as HTML: a table of all, then each."""
    rows = [
        (f"p{place}", plan.host, fleet_row(plan), verdict(plan)) for place, plan in enumerate(fleet.plans, 1)
    ]
    return render(
        "plan.html",
        title=f"Plan for {len(rows)} machines",
        fleet={
            "rows": rows,
            "huge": total(fleet.plans, *HUGE),
            "could": total(fleet.plans, *COULD),
            "unknown": sum(plan.callers is None for plan in fleet.plans),
        },
        views=[_view(place, plan) for place, plan in enumerate(fleet.plans, 1)],
    )


def _view(place: int, plan: Plan) -> View:
    return View(
        f"p{place}",
        plan.host or "this machine",
        heading(plan),
        verdict(plan),
        [
            Advice(
                one.subject,
                one.what,
                f"{one.why[0].upper()}{one.why[1:]}.",
                one.action,
                number(one.saved_cycles, 2) if one.saved_cycles else "",
                difference(0, -one.saved_bytes) if one.saved_bytes else "",
            )
            for one in plan.recommendations
        ],
        _callers(plan),
        [
            [
                one.name,
                size(one.bytes),
                f"{one.entries:,}",
                "direct map" if one.place == "linear" else one.place or "?",
                one.told_by,
                one.parameter or "-",
            ]
            for one in plan.tables
        ],
        facts(plan),
        notes(plan),
    )


def _callers(plan: Plan) -> list[CallerRow]:
    callers = plan.callers or []
    longest = max((one.base_pages for one in callers), default=1)
    rows = []
    for one in callers:
        entries = bars([one.base_pages, one.pmd_leaves, longest], ["", "", ""], ["base", "pmd", ""])[:2]
        rows.append(
            CallerRow(
                one.caller,
                STANDINGS[one.standing],
                one.why,
                [
                    cell._replace(text=f"{count:,}")
                    for cell, count in zip(entries, (one.base_pages, one.pmd_leaves), strict=True)
                ],
                size(one.page_tables_saved),
                waste(one),
                saving(plan.gains.get(one.caller)) if one.standing != "never" else "",
            )
        )
    return rows
