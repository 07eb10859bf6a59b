"""How sure a result is, in words: what measurements say, what is assumed, what is not known."""

from collections.abc import Iterable, Sequence

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load, names
from pagewalk.replay.result import Result, TraceFacts
from pagewalk.report.words import decimals, millions, number, relative
from pagewalk.study.compare import Comparison, by_machine, per_1000
from pagewalk.study.latencies import latency_range
from pagewalk.study.validation.standing import Short, Standing, packaged, standing


def instructions(trace: TraceFacts) -> str:
    """How many instructions misses are counted for, and how that is known."""
    if trace.instructions is None:
        return "Misses for 1000 instructions (MPKI): unknown, the trace does not tell how many it stands for."
    return f"{millions(trace.instructions)} instructions, {trace.instructions_told_by}."


def measured(results: Iterable[Result], more: Sequence[Short] = ()) -> list[str]:
    """A sentence for each machine that was measured, and one for all that were not.

    Parameters
    ----------
    results : iterable of Result
    more : sequence of Short
        Cases besides the packaged ones; one of the same name counts instead of the packaged one.
    """
    found = _standings(results, more)
    said = [_said(name, one) for name, one in found.items() if one]
    unknown = [name for name, one in found.items() if one is None]
    if unknown:
        it = "how far it is off is unknown" if len(unknown) == 1 else "how far they are off is unknown"
        said.append(f"No measured case is of {', '.join(unknown)}: {it}.")
    return said


def of_machine(machine: str) -> str:
    """A preset's sentence, from the packaged cases."""
    found = standing(packaged().cases, machine)
    if found is None:
        return f"No measured case is of {machine}: how far its walk cycles are off is unknown."
    return _said(machine, found)


def in_short(result: Result) -> str:
    """The same in one line, from the packaged cases alone."""
    found = _standings([result], ())
    known = [
        f"{name} {_percent(one.typical_error)} (median of {one.costs}; worst {_percent(one.worst_error)})"
        for name, one in found.items()
        if one and one.costs
    ]
    others = [name for name, one in found.items() if not (one and one.costs)]
    unknown = [name for name in others if name in names()]
    files = [name for name in others if name not in names()]
    parts = [f"measured cycles and misses are off by: {', '.join(known)}"] if known else []
    parts += [f"never measured, so how far off is unknown: {', '.join(unknown)}"] if unknown else []
    parts += [f"no packaged case tells how far off: {', '.join(files)}"] if files else []
    return "; ".join(parts)


def _standings(results: Iterable[Result], more: Sequence[Short]) -> dict[str, Standing | None]:
    named = {case.name: case for case in (*packaged().cases, *more)}
    machines: dict[str, str] = {}
    for result in results:
        for machine in by_machine(result):
            machines.setdefault(machine, result.provenance.machine_sha256.get(machine, ""))
    return {name: standing(list(named.values()), name, digest) for name, digest in machines.items()}


def _said(machine: str, found: Standing) -> str:
    sizes = f"{found.sizes_right} of {found.sizes} measured TLB sizes are right" if found.sizes else ""
    if found.costs:
        typical, worst = _percent(found.typical_error), _percent(found.worst_error)
        costs = (
            f"measured cycles and misses ({found.costs} values) are off by {typical} in the median, "
            f"by {worst} at worst; {found.costs_inside} lie in their bands"
        )
    else:
        costs = "no cycles or misses were measured: how far those are off is unknown"
    return f"On {machine}, {'; '.join(part for part in (sizes, costs) if part)}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0095 or not share else f"{100 * share:.1f} %"


def assumed_latencies(pair: Comparison, sha256: str = "") -> str:
    """What the headline may be when latencies that nobody published are others; "" where that is not known.

    Parameters
    ----------
    pair : Comparison
    sha256 : str
        Of the machine as it was then; "" where it was not noted.
    """
    try:
        machine = load(pair.after.machine)
    except BadInput:
        return ""
    if sha256 and machine.sha256 != sha256:
        return ""
    found = latency_range(pair, machine)
    if found is None:
        return ""
    accesses = pair.before.counts["accesses"]
    rates = [per_1000(cycles, accesses) for cycles in found.cycles[0]]
    low, high = (number(rate, decimals(rates)) for rate in rates)
    ends = " to ".join(dict.fromkeys(relative(1, 1 + share) for share in reversed(found.changes)))
    limits = "30 % less or more" + (" (the walker's start 50 %)" if "walker" in found.names else "")
    return (
        f"Latencies that nobody published ({', '.join(found.names)}), {limits}, make "
        f"{pair.before.mapping} cost {low} to {high} walk cycles per 1000 accesses, and the change {ends}."
    )
