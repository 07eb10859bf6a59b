"""The figures of a machine one by one, and which of them are assumed."""

from typing import NamedTuple

from pagewalk.hardware.machine import Described, Machine, Tlb, tables

NO_FIGURES = {
    *Described.__struct_fields__,
    *("schema", "id", "sha256", "name", "level", "unknown", "perf_events"),
    *("tlb", "psc", "cache", "memory", "walker", "flush", "spaces", "guest", "host_psc"),
}
"""Fields that are words, or tables with figures of their own."""

ABSENT = {
    "coalesce": 1,
    "slice_sets": 0,
    "inclusive": False,
    "shared": False,
    "choose": "",
    "enters": "",
    "fill": "demand",
}
"""Values by which a machine says that it has no such thing: no figures, unless a reason is given for them."""


class Figure(NamedTuple):
    """One figure of a table."""

    name: str
    value: str
    assumed: str
    """Why this value was chosen; "" where the table's source gives it."""


def figures(table: Described) -> list[Figure]:
    """Figures of one table of a machine, in the order of its fields."""
    found = []
    for name in table.__struct_fields__:
        value, why = getattr(table, name), table.assumed.get(name, "")
        if name not in NO_FIGURES and (why or not _absent(table, name, value)):
            found.append(Figure(name, _said(name, value), why or ("" if table.source else "no source given")))
    return found


class Difference(NamedTuple):
    """A figure in which two machines differ; "-" where one of them has no such table."""

    table: str
    figure: str
    first: str
    second: str


def differences(first: Machine, second: Machine) -> list[Difference]:
    """Figures in which two machines differ, tables matched by their names."""
    said = [
        {
            (getattr(table, "name", "") if where else "machine") or where: {
                f.name: f.value for f in figures(table)
            }
            for where, table in tables(machine)
        }
        for machine in (first, second)
    ]
    found = []
    for table in dict.fromkeys([*said[0], *said[1]]):
        one, other = (each.get(table, {}) for each in said)
        found += [
            Difference(table, name, one.get(name, "-"), other.get(name, "-"))
            for name in dict.fromkeys([*one, *other])
            if one.get(name) != other.get(name)
        ]
    return found


def _absent(table: Described, name: str, value: object) -> bool:
    if isinstance(table, Tlb) and name == "hit_cycles":
        return table.level == 1 and value == 0
    if isinstance(table, Tlb) and name == "index":
        return table.ways in (0, table.entries)
    return name in ABSENT and value == ABSENT[name]


def _said(name: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "any"
    if name.endswith("ways") and value == 0:
        return "fully associative"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def assumed_share(machine: Machine) -> tuple[int, int]:
    """Count the figures that no source gives as they stand, and all figures."""
    found = [figure for _, table in tables(machine) for figure in figures(table)]
    return sum(bool(figure.assumed) for figure in found), len(found)
