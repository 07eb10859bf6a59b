"""How figures are worded: numbers with their units, changes, and the answer as a sentence."""

from collections.abc import Iterable, Sequence

from pagewalk.replay.result import Replay, Result, TraceFacts
from pagewalk.study.compare import Comparison, Measure, change, compare, comparisons

_NAMES = {
    "base": "base pages",
    "pmd": "PMD leaves",
    "huge": "huge vmalloc leaves",
    "recorded": "the recorded leaves",
}


def number(value: float, decimals: int = 0) -> str:
    """A number with thousands separated; a value that would round to nothing says so ("<0.01")."""
    if value and abs(value) < 10**-decimals / 2:
        return f"<{10**-decimals:.{decimals}f}"
    return f"{value:,.{decimals}f}"


def decimals(values: Iterable[float]) -> int:
    """Decimals that show the smallest of `values` with two or three digits, two decimals at most."""
    present = [abs(value) for value in values if value]
    smallest, largest = min(present, default=100.0), max(present, default=100.0)
    if smallest >= 100 or (smallest >= 10 and largest >= 1000):
        return 0
    return 1 if smallest >= 10 else 2


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
    return _NAMES.get(name, f"the leaves of {name}")


def heading(trace: TraceFacts) -> str:
    """The trace in one line."""
    touched = size(trace.distinct_base_pages << 12)
    return f"{shorten(trace.name, 48)}, {millions(trace.accesses)} accesses, {touched} touched"


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
    machine, paid = comparison.after.machine, price(comparison.paid_bytes)
    if not any(measure.values):
        return f"Nothing to save on {machine}: no page walk under either mapping."
    who, ending = subject(comparison)
    return (
        f"{who} {effect(measure, ending)} on {machine} "
        f"({_rates(measure)} {measure.unit}){_waiting(comparison, measure, ending)}, {paid}."
    )


def subject(pair: Comparison) -> tuple[str, str]:
    """Who a comparison is about, and the ending of its verbs: none for "PMD leaves", "s" for one kernel."""
    known = _NAMES.get(pair.after.mapping)
    if known:
        return _capital(known), ""
    return f"{pair.after.mapping} instead of {pair.before.mapping}", "s"


def _waiting(comparison: Comparison, headline: Measure, ending: str) -> str:
    """What becomes of all the waiting for translation, STLB hits and flushes too, where that differs."""
    exposed = next((m for m in comparison.measures if m.name == "exposed cycles"), None)
    if exposed is None or not any(exposed.values) or exposed.values == headline.values:
        return ""
    waits = Measure("cycles that the program waits", exposed.unit, exposed.values)
    return f" and {effect(waits, ending)}"


def _rates(measure: Measure) -> str:
    places = decimals(measure.values)
    return " to ".join(dict.fromkeys(number(value, places) for value in measure.values))


def effect(measure: Measure, ending: str = "") -> str:
    """What becomes of a cost: "save 12.3 % of the walk cycles", "costs 3.1 times the page walks"."""
    before, after = measure.values
    moved = change(before, after)
    if moved is None:
        return f"bring{ending} {measure.name} where there were none"
    if moved == 0:
        return f"do{'es' if ending else ''} not change the {measure.name}"
    if moved < 0:
        return f"save{ending} {_percent(-moved) if after else 'all'} of the {measure.name}"
    if moved >= 1:
        return f"cost{ending} {number(1 + moved, 0 if moved >= 99 else 1)} times the {measure.name}"
    return f"cost{ending} {_percent(moved)} more {measure.name}"


def verdict_of_all(found: Sequence[Comparison]) -> str:
    """The answer for several machines in one sentence."""
    measures = {comparison.after.machine: headline(comparison) for comparison in found}
    moved = {machine: change(*measure.values) or 0.0 for machine, measure in measures.items()}
    best, *_, worst = sorted(moved, key=lambda machine: moved[machine])
    who, ending = subject(found[0])
    name = measures[best].name
    if not any(moved.values()) and all(len(set(measure.values)) == 1 for measure in measures.values()):
        return f"{who} change{ending} nothing on {len(moved)} machines"
    if moved[worst] < 0 and name == measures[worst].name:
        saved = f"{_percent(-moved[worst])} ({worst}) to {_percent(-moved[best])} ({best})"
        return f"{who} save{ending} {saved} of the {name} on {len(moved)} machines"
    there = f"{'it' if ending else 'they'} {effect(measures[worst], ending)} on {worst}"
    return f"{who} {effect(measures[best], ending)} on {best}; {there}"


def answer(result: Result) -> str:
    """The answer in a title: without rates and price, or the cost where there is nothing to compare."""
    found = comparisons(result)
    if len(found) > 1:
        return verdict_of_all(found)
    if found:
        measure = headline(found[0])
        if not any(measure.values):
            return "No page walk under either mapping: nothing to save"
        who, ending = subject(found[0])
        return f"{who} {effect(measure, ending)} on {found[0].after.machine}"
    rates = [compare(replay, replay).walk_rates[0] for replay in result.replays]
    low, high = (number(rate, decimals(rates)) for rate in (min(rates), max(rates)))
    return f"{low if low == high else f'{low} to {high}'} walk cycles per 1000 accesses"


def who(pair: Comparison) -> str:
    """Which caller gains or loses most, or costs most under a single mapping, as a title."""
    weights = [c.walk_cycles[0] if pair.alone else abs(c.saved_cycles) for c in pair.callers]
    if not any(weights):
        return "No caller's walks cost a cycle" if pair.alone else "No caller's walk cycles change"
    top = pair.callers[weights.index(max(weights))]
    rates = pair.rates(top.walk_cycles)
    before, after = (number(rate, decimals(rates)) for rate in rates)
    change = f"{'gains' if top.saved_cycles > 0 else 'loses'} most: {before} to {after}"
    return (
        f"{shorten(top.name, 40)} {f'costs most: {before}' if pair.alone else change} "
        "walk cycles per 1000 accesses"
    )


def dearest(pair: Comparison) -> str:
    """Which caller takes most memory for what it saves, as a title."""
    payers = [caller for caller in pair.callers if caller.paid_bytes]
    if not payers:
        return "No caller takes more memory"
    top = max(payers, key=lambda caller: caller.paid_bytes)
    ends = pair.rates(top.walk_cycles)
    saved = ends[0] - ends[1]
    if not saved:
        result = "saves no walk cycle"
    else:
        does = "saves" if saved > 0 else "costs"
        result = f"{does} {number(abs(saved), decimals((saved,)))} walk cycles per 1000 accesses"
    return f"{shorten(top.name, 40)} {result}, {price(top.paid_bytes)}"


def when(pair: Comparison) -> str:
    """Whether a mapping is cheaper all along the trace, as a title."""
    old, new = pair.before.windows.walk_cycles, pair.after.windows.walk_cycles
    if pair.alone:
        mean = sum(old) / max(len(old), 1)
        return (
            f"Walk cycles peak at {max(old) / mean:.1f} times their mean"
            if mean
            else "No walk cycles at any time"
        )
    fewer = sum(b < a for a, b in zip(old, new, strict=False))
    more = sum(b > a for a, b in zip(old, new, strict=False))
    who, ending = subject(pair)
    if not fewer and not more:
        return f"{who} change{ending} nothing at any time"
    for count, word in ((fewer, "fewer"), (more, "more")):
        if count == len(old):
            return f"{who} cost{ending} {word} walk cycles all along the trace"
    counts = sorted(((fewer, "fewer"), (more, "more")), key=lambda pair: -pair[0])
    (often, most), (seldom, least) = counts
    some = f"{who} cost{ending} {most} walk cycles in {often} of {len(old)} windows of the trace"
    return f"{some}, {least} in {seldom or 'none'}"


def where(replays: Sequence[Replay]) -> str:
    """Where walk references were found most often, as a title."""
    said: dict[str, dict[str, list[str]]] = {}
    for replay in replays:
        found = replay.walk_refs_in
        if any(found.values()):
            place = max(found, key=lambda name: found[name])
            share = dict(zip(found, shares(list(found.values())), strict=True))[place]
            said.setdefault(place, {}).setdefault(share, []).append(replay.mapping)
    if not said:
        return "No walk, so no walk reference"
    places = "; in ".join(
        f"{place}: {', '.join(f'{several(names)} {share}' for share, names in parts.items())}"
        for place, parts in said.items()
    )
    return f"Walk references are most often found in {places}"


def several(names: Sequence[str]) -> str:
    """Names in a row: ``a``, ``a and b``, ``a, b and c``; of more than three ``a and 4 others``."""
    if len(names) > 3:
        return f"{names[0]} and {len(names) - 1} others"
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def moved(mappings: Iterable[str], pair: Comparison) -> str:
    """The head of a column of changes: of more than two mappings it says from which to which."""
    return "change" if len(set(mappings)) == 2 else f"{pair.before.mapping} to {pair.after.mapping}"


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
