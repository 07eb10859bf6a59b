"""How figures are worded: numbers with their units, changes, and the answer as a sentence."""

from collections.abc import Iterable, Sequence

from pagewalk.replay.result import TraceFacts
from pagewalk.study.compare import Comparison, Measure, change

_NAMES = {"base": "base pages", "pmd": "PMD leaves", "recorded": "the recorded leaves"}


def number(value: float, decimals: int = 0) -> str:
    """A number with thousands separated; a value that would round to nothing says so ("<0.01")."""
    if value and abs(value) < 10**-decimals / 2:
        return f"<{10**-decimals:.{decimals}f}"
    return f"{value:,.{decimals}f}"


def decimals(values: Iterable[float]) -> int:
    """Decimals that show the smallest of `values` with two or three digits, two decimals at most."""
    smallest = min((abs(value) for value in values if value), default=100.0)
    return 0 if smallest >= 100 else 1 if smallest >= 10 else 2


def size(value: float) -> str:
    """Bytes in binary units, with three digits: ``428 KiB``, ``1.75 MiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    scaled, unit = float(value), units[0]
    for larger in units[1:]:
        if abs(scaled) < 999.5:
            break
        scaled, unit = scaled / 1024, larger
    whole = abs(scaled) >= 100 or scaled == int(scaled)
    digits = 0 if whole else 1 if abs(scaled) >= 9.995 else 2
    return f"{scaled:,.{digits}f} {unit}"


def relative(before: float, after: float) -> str:
    """A change as people say it: ``-97.2 %``, ``+3 %``, ``x 12``, ``same``, ``from 0``."""
    moved = change(before, after)
    if moved is None:
        return "from 0"
    if moved == 0:
        return "same"
    if moved >= 9:
        return f"x {1 + moved:,.0f}"
    if abs(moved) < 0.0005:
        return f"{'+' if moved > 0 else '-'}<0.1 %"
    if moved < -0.9995 and after:
        return f"-{min(-100 * moved, 99.99):.2f} %"
    return f"{100 * moved:+.1f} %"


def difference(before: float, after: float) -> str:
    """A change of bytes: ``+1.75 MiB``, ``-424 KiB``, ``same``."""
    moved = after - before
    return "same" if moved == 0 else f"{'+' if moved > 0 else '-'}{size(abs(moved))}"


def shares(parts: Sequence[int]) -> list[str]:
    """Percent of their sum for each of `parts`; what is there but below half a percent is "<1 %"."""
    total = sum(parts)
    return ["-" if not part else f"{number(100 * part / total)} %" for part in parts]


def mapping(name: str) -> str:
    """A mapping's name in a sentence."""
    return _NAMES.get(name, f"mapping {name}")


def heading(trace: TraceFacts) -> str:
    """The trace in one line."""
    return f"{trace.name}, {millions(trace.accesses)} accesses to {size(trace.distinct_base_pages << 12)}"


def millions(count: int) -> str:
    """A count with three digits: ``980``, ``64.2 k``, ``12.3 M``, ``1.50 G``; ``T`` is 10^12."""
    for scale, unit in ((10**12, " T"), (1_000_000_000, " G"), (1_000_000, " M"), (1000, " k")):
        if count >= 0.9995 * scale:
            scaled = count / scale
            return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f}{unit}"
    return str(count)


def headline(comparison: Comparison) -> Measure:
    """The figure that answers the question: walk cycles, or page walks where no walk costs a cycle."""
    by_name = {(m.name, m.unit): m for m in comparison.measures}
    cycles = by_name.get(("walk cycles", "per 1000 accesses"))
    if cycles and any(cycles.values):
        return cycles
    return by_name.get(
        ("page walks", "per 1000 accesses"), Measure("page walks", "per 1000 accesses", (0, 0))
    )


def verdict(comparison: Comparison) -> str:
    """The answer in one sentence, right whichever way it goes."""
    measure = headline(comparison)
    before, after = measure.values
    if not before and not after:
        return f"Nothing to save on {comparison.after.machine}: no page walk under either mapping."
    places = decimals(measure.values)
    rates = (
        f"{number(before, places)}"
        if before == after
        else f"{number(before, places)} to {number(after, places)}"
    )
    return (
        f"{_capital(mapping(comparison.after.mapping))} {effect(measure)} on {comparison.after.machine}: "
        f"{rates} {measure.unit}, {price(comparison.paid_bytes)}."
    )


def effect(measure: Measure) -> str:
    """What becomes of a cost: "save 12.3 % of the walk cycles", "cost 3.1 times the page walks"."""
    before, after = measure.values
    moved = change(before, after)
    if moved is None:
        return f"bring {measure.name} where there were none"
    if moved == 0:
        return f"leave the {measure.name} as they are"
    if moved < 0:
        return f"save {_percent(-moved) if after else 'all'} of the {measure.name}"
    return (
        f"cost {1 + moved:,.1f} times the {measure.name}"
        if moved >= 1
        else f"cost {_percent(moved)} more {measure.name}"
    )


def verdict_of_all(comparisons: Sequence[Comparison]) -> str:
    """The answer for several machines in one sentence."""
    measures = {comparison.after.machine: headline(comparison) for comparison in comparisons}
    ranked = sorted(measures, key=lambda machine: change(*measures[machine].values) or 0.0)
    best, worst = ranked[0], ranked[-1]
    subject = _capital(mapping(comparisons[0].after.mapping))
    return (
        f"On {len(measures)} machines: {subject} {effect(measures[best])} on {best}, "
        f"and {effect(measures[worst])} on {worst}."
    )


def price(paid_bytes: int) -> str:
    """What it takes in memory: "for 1.75 MiB more memory"."""
    if not paid_bytes:
        return "for the same memory"
    return f"for {size(abs(paid_bytes))} {'more' if paid_bytes > 0 else 'less'} memory"


def shorten(name: str, width: int) -> str:
    """Cut a long name in its middle: callers of one family differ at their ends."""
    if len(name) <= width:
        return name
    tail = (width - 2) // 2
    return f"{name[: width - 2 - tail]}..{name[-tail:]}"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _percent(share: float) -> str:
    if share < 0.0005:
        return "less than 0.1 %"
    return f"{min(100 * share, 99.99):.2f} %" if share > 0.9995 else f"{100 * share:.1f} %"
