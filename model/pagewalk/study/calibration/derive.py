"""Figures of the machine from timed chases, one after the other.

Each figure is worked out of the chases that show it alone, in this order: the near caches; the TLBs, after
the data reads; what a walk takes besides its reads, the far cache and memory, so that the model itself, with
all that is known by then, gives the measured time.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pagewalk.hardware.load import build, load
from pagewalk.hardware.machine import Machine, Tlb
from pagewalk.study.calibration.fit import NEARLY, Fit, candidates, fit, near
from pagewalk.study.calibration.geometry import misses_of_a_set
from pagewalk.study.calibration.timed.here import Here
from pagewalk.study.calibration.timed.plan import Points
from pagewalk.study.calibration.timed.timing import MULTIPLY_CYCLES, Point
from pagewalk.study.validation.case import Chase
from pagewalk.study.validation.predict import Figures, hosted, predict

SLOW = 1.2
"""A walk that takes longer than this times the usual has lost its PDE. Ours."""

WHOLE = 0.9
"""Share of the last cache from which it counts as this CPU's alone. Ours."""

TWO_MIB = 1 << 21

Lie = Literal["packed", "pairs", "scattered"]
LIES: tuple[Lie, ...] = ("packed", "pairs", "scattered")


class Value(NamedTuple):
    """A measured figure.

    Attributes
    ----------
    value : float
    low, high : float
        Where it lies: by the spread of the passes; of a geometry, by the candidates that explain the times
        nearly as well.
    how : str
        Which chases gave it.
    """

    value: float
    low: float
    high: float
    how: str


class Draft:
    """A machine file in the making.

    Attributes
    ----------
    here : Here
    file : dict
        Content of the file; extends the preset.
    values : dict of str to Value
        What was measured.
    missing : dict of str to str
        Figure -> why it could not be measured; the preset's stands.
    """

    def __init__(self, found: Here) -> None:
        self.here = found
        self.file: dict[str, Any] = {"extends": found.preset, "name": f"{found.processor[:56]}, calibrated"}
        self.values: dict[str, Value] = {}
        self.missing: dict[str, str] = {}

    def machine(self) -> Machine:
        """The machine that the file describes so far."""
        return build(self.file, "calibrated", "calibrate")

    def put(self, table: str, name: str, how: str, **figures: object) -> None:
        """Set figures of a table; of the entry of that name where there are several."""
        if not table:
            below = self.file
        elif not name:
            below = self.file.setdefault(table, {})
        else:
            listed = self.file.setdefault(table, [])
            if all(one["name"] != name for one in listed):
                listed.append({"name": name})
            below = next(one for one in listed if one["name"] == name)
        said = below.get("source", "pagewalk calibrate")
        below |= figures | {"source": said if how in said else f"{said}; {how}", "confidence": "measured"}


def clock(draft: Draft, ghz: Sequence[float]) -> None:
    """Core clock."""
    how = f"dependent multiplications of {MULTIPLY_CYCLES} cycles"
    draft.values["clock_ghz"] = Value(float(np.median(ghz)), min(ghz), max(ghz), how)
    draft.put("", "", how, clock_ghz=round(float(np.median(ghz)), 3))


def counters(draft: Draft, counted: Mapping[str, float]) -> None:
    """Note what hardware counters say beside the times; figures of the file stay those of the times."""
    if not counted:
        draft.missing["hardware counters"] = "the kernel shows none to this process"
    for name, value in counted.items():
        draft.values[name] = Value(value, value, value, "perf_event_open, user mode")


def near_caches(draft: Draft, points: Points) -> None:
    """Latencies of the first two caches; sizes and ways of all, as the kernel lists them."""
    for level, cache in enumerate(draft.machine().cache, start=1):
        figures: dict[str, object] = {}
        how = "sizes as the kernel lists them"
        if level in draft.here.caches:
            size, ways, line, sharing = draft.here.caches[level]
            figures = {"size_bytes": size, "ways": ways, "line_bytes": line}
            if level > 1:
                figures["shared"] = sharing > 1
        else:
            draft.missing[f"{cache.name} size"] = "the kernel does not list it"
        if cache.name in ("L1D", "L2"):
            value = _lowest(points[cache.name], f"{points[cache.name][-1].pattern.pages} lines and fewer")
            draft.values[f"{cache.name} latency_cycles"] = value
            figures["latency_cycles"] = round(value.value)
            how = f"a chase within the cache ({value.value:.2f} cycles); {how}"
        draft.put("cache", cache.name, how, **figures)


def tlbs(draft: Draft, points: Sequence[Point]) -> tuple[Fit, NDArray[np.float64]]:
    """Entries, ways, index and hit cost of both TLB levels, for loads of 4K pages.

    Returns
    -------
    tlb : Fit
    data : ndarray of float64
        Cycles of the data read alone, for each point.
    """
    machine = draft.machine()
    plain = {p.pattern.pages: Chase(pages=p.pattern.pages) for p in points}
    reads = {n: predict(pattern, machine).figures["data_cycles"] for n, pattern in plain.items()}
    data = np.array([reads[p.pattern.pages] for p in points])
    total = np.array([p.cycles for p in points])
    shapes = [(p.pattern.pages, p.pattern.stride >> 12) for p in points]
    data += float(np.median((total - data)[:5]))
    arrays = _arrays(machine, 2)
    known = candidates(shapes, arrays[0].entries if draft.here.guest and len(arrays) == 1 else 0)
    found = fit(known, total - data, total)
    first, second = found.first, found.second
    how = f"{len(points)} chases over 4K pages, explained within {found.error:.1%} (root mean square)"
    for name, chosen, level in (("L1 DTLB", first, 1), ("L2 TLB", second, 2)):
        also = near(level, found, known, total - data, total)
        entries = [g.entries for g in also]
        draft.values[f"{name} entries"] = Value(chosen.entries, min(entries), max(entries), how)
        draft.values[f"{name} ways"] = Value(
            chosen.ways if chosen.sets > 1 else chosen.entries,
            min(g.ways for g in also),
            max(g.ways for g in also),
            f"{chosen.sets} sets, {chosen.set_index} index, {chosen.policy} replacement"
            + ", shared with what walks remember" * chosen.shared,
        )
        _put_array(draft, machine, name, level, found, how)
    spread = float(np.median([p.spread for p in points]))
    for name, cycles in (
        ("L2 TLB hit_cycles", found.hit_cycles),
        ("walk over an L2 TLB hit", found.walk_cycles),
    ):
        draft.values[name] = Value(
            cycles, cycles * (1 - found.error), cycles * (1 + found.error + spread), how
        )
    return found, data


def _arrays(machine: Machine, level: int) -> list[Tlb]:
    """The arrays of a level that hold 4K pages of loads."""
    return [
        t for t in machine.tlb if t.level == level and "load" in t.serves and (not t.holds or "4K" in t.holds)
    ]


def _put_array(draft: Draft, machine: Machine, name: str, level: int, found: Fit, how: str) -> None:
    arrays = _arrays(machine, level)
    if len(arrays) != 1:
        why = f"{len(arrays)} arrays share 4K pages; {found.second.entries} entries were seen in all"
        draft.missing[f"{name} of the preset"] = why
        return
    g = found.first if level == 1 else found.second
    figures: dict[str, object] = {
        "entries": g.entries, "ways": g.ways if g.sets > 1 else 0, "index": g.expression, "policy": g.policy,
    }  # fmt: skip
    if level == 2:
        figures["hit_cycles"] = round(found.hit_cycles)
    draft.put("tlb", arrays[0].name, how, **figures)


def guest(draft: Draft, points: Points, huge: float, tlb: Fit) -> None:
    """Whether 2M pages get 2M entries, and so how the host maps a guest; how many the L1 holds."""
    if huge < 0.9:
        draft.missing["2M pages"] = f"the kernel mapped only {huge:.0%} of the memory asked for with them"
        return
    extra = min(p.cycles for p in points["2M near"]) - draft.values["L1D latency_cycles"].value
    small = extra > tlb.hit_cycles / 2 and tlb.first.entries < 128
    how = f"128 4K pages of one 2M page take {extra:.1f} cycles more than a cache hit"
    if draft.here.guest:
        draft.put("guest", "", how, **_host("4K" if small else "2M"))
        if small and tlb.second.shared:
            draft.file["guest"]["walks_in_stlb"] = True
            _put_host_pdes(draft, tlb.second.entries, "ours: as many as the second level holds")
        draft.values["host leaf in bytes"] = Value(4096 if small else TWO_MIB, 4096, TWO_MIB, how)
    if small:
        draft.missing["2M entries of the TLBs"] = f"2M pages get no 2M entries: {how}"
        return
    base = draft.values["L1D latency_cycles"].value
    hits = [p.pattern.pages for p in points["2M apart"] if p.cycles - base < tlb.hit_cycles / 2]
    misses = [p.pattern.pages for p in points["2M apart"] if p.pattern.pages > max(hits, default=0)]
    how = "chases over 2M pages, one line in each"
    draft.values["L1 DTLB 2M entries"] = Value(
        max(hits, default=0), max(hits, default=0), min(misses, default=max(hits, default=0)), how
    )


def _host(leaf: str) -> dict[str, Any]:
    """The host's dimension: its leaf was measured, all else is what the model takes where nobody says."""
    guest = hosted(load("amd-zen4-genoa"), leaf).guest
    assert guest is not None
    why = "ours: sizes are not published and not measured; those of the guest presets"
    return {
        "host_leaf": leaf,
        "nested_entries": guest.nested_entries,
        "combined_psc": guest.combined_psc,
        "assumed": dict.fromkeys(("host_levels", "nested_entries", "nested_ways", "combined_psc"), why),
        "host_psc": [
            {
                "name": psc.name,
                "level": psc.level,
                "entries": psc.entries,
                "ways": psc.ways,
                "assumed": dict.fromkeys(("entries", "ways", "policy"), why),
            }
            for psc in guest.host_psc
        ],
    }


def walk(draft: Draft, points: Points, lie: Lie) -> None:
    """What a walk takes besides its reads: the rest, when the model knows all else."""
    draft.put("walker", "", "chases that walk on every access", start_cycles=0)
    machine = draft.machine()
    rest = []
    for point in points["walking"]:
        said = predict(replace(point.pattern, frames=lie), machine).figures
        rest.append((point.cycles - said["cycles"]) / max(said["stlb_misses"], 0.01))
    start = float(np.median(rest))
    how = f"chases over {points['walking'][0].pattern.pages} pages and more at 64K stride"
    draft.values["walker start_cycles"] = Value(start, min(rest), max(rest), how)
    draft.put("walker", "", how, start_cycles=max(round(start), 0))
    if start < 0:
        draft.missing["walker start_cycles"] = (
            f"the model's reads alone take {-start:.0f} cycles more than a walk"
        )


def far_caches(draft: Draft, points: Points) -> None:
    """Latency of the last cache, then of memory: what makes the model give the measured time."""
    if any(cache.name == "L3" for cache in draft.machine().cache):
        _solve(draft, points["L3"], "cache", "L3")
    _solve(draft, points["memory"], "memory", "")
    if 3 in draft.here.caches and _share(draft, points["L3 share"]):
        _solve(draft, points["memory"], "memory", "")


def _share(draft: Draft, points: Sequence[Point]) -> bool:
    """How much of the last cache neighbours leave to this CPU; whether that is less than all of it.

    They take lines at any moment, so what is left holds lines as a smaller cache with random replacement
    does: of N lines in a random cycle through room for E, the share m with 1 - m = (1 - 1/E)^((N-1) m)
    misses (the reference's section 6.1, rule 3). A victim cache holds other lines than the L2 before it.
    """
    machine = draft.machine()
    last = next(cache for cache in machine.cache if cache.name == "L3")
    listed = last.size_bytes // last.line_bytes
    inside = [point for point in points if point.pattern.pages <= listed]
    if not inside:
        return False
    over = [point.cycles - predict(point.pattern, machine).figures["cycles"] for point in inside]
    missed = np.clip(np.array(over) / (machine.memory.latency_cycles - last.latency_cycles), 0.0, 1.0)
    rooms = [listed * part // 64 for part in range(1, 65)]
    lines = [point.pattern.pages for point in inside]
    l2 = [c.size_bytes // c.line_bytes for c in machine.cache if c.name == "L2"]
    also = sum(l2) if last.fill == "victim" else 0
    said = np.array([[misses_of_a_set(n, room + also, "random") / n for n in lines] for room in rooms])
    error = np.sqrt(((said - missed) ** 2).mean(axis=1))
    best = int(np.flatnonzero(error <= error.min() + 1e-6)[-1])
    fair = [room for room, wrong in zip(rooms, error, strict=True) if wrong <= NEARLY * error[best]]
    how = f"chases over {lines[0] >> 14} to {lines[-1] >> 14} MiB: lines that neighbours leave in it"
    size, least, most = (room * last.line_bytes for room in (rooms[best], min(fair), max(fair)))
    draft.values["L3 size_bytes"] = Value(size, least, most, how)
    if rooms[best] > WHOLE * listed:
        return False
    sets = max(rooms[best] // last.ways, 1)
    draft.put("cache", "L3", how, size_bytes=sets * last.ways * last.line_bytes, policy="random")
    return True


def _solve(draft: Draft, points: Sequence[Point], table: str, name: str) -> None:
    """Find the latency at which the prediction, which is linear in it, meets the measured time."""
    how = f"a chase over {points[0].pattern.pages * points[0].pattern.stride >> 20} MiB"
    label = f"{name or table} latency_cycles"
    machine = draft.machine()
    below = max(c.latency_cycles for c in machine.cache if c.name != name)
    near, far = below + 1, below + 1001
    said = []
    for latency in (near, far):
        caches = [c if c.name != name else replace(c, latency_cycles=latency) for c in machine.cache]
        memory = replace(machine.memory, latency_cycles=far if name else latency)
        tried = replace(machine, cache=caches, memory=memory)
        said.append([predict(point.pattern, tried).figures["cycles"] for point in points])
    found = [
        near + (point.cycles - low) / (high - low) * (far - near)
        for point, low, high in zip(points, *said, strict=True)
        if high > low
    ]
    if not found:
        draft.missing[label] = f"{how} lies within the caches before it"
        return
    spread = float(np.median([point.spread for point in points]))
    draft.values[label] = Value(min(found), min(found), max(found) * (1 + spread), how)
    draft.put(table, name, how, latency_cycles=max(round(min(found)), near))


def frames(draft: Draft, points: Points, shared: bool) -> Lie:
    """How 4K pages of this process lie in physical memory: as the model fits chases over more than L2 holds.

    In a guest, neighbours share lines of the host's tables where their frames are neighbours too; memory that
    was cut up by what ran before gives each page, or each two, a line and a PDE of their own.

    Parameters
    ----------
    draft : Draft
        That knows the far caches.
    points : Points
    shared : bool
        What walks remember was seen among translations, so that memory is cut up.
    """
    if shared:
        return "scattered"
    wrong: dict[Lie, float] = {}
    for lie in LIES:
        tried = copy.deepcopy(draft)
        walk(tried, points, lie)
        machine = tried.machine()
        said = [predict(replace(p.pattern, frames=lie), machine).figures["cycles"] for p in points["frames"]]
        errors = [cycles / p.cycles - 1 for cycles, p in zip(said, points["frames"], strict=True)]
        wrong[lie] = float(np.sqrt(np.square(errors).mean()))
    return min(LIES, key=lambda lie: wrong[lie])


def pde_reach(draft: Draft, points: Points, data: float) -> None:
    """Address space whose PDEs stay cached: up to where a walk takes no longer than near ones do."""
    tlb_hit = draft.values["L2 TLB hit_cycles"].value
    spans = sorted(
        (p.pattern.pages * p.pattern.stride, p.pattern.stride, p.cycles - data - tlb_hit)
        for p in points["spaced"]
    )
    usual = float(np.median([extra for _, stride, extra in spans if stride == TWO_MIB]))
    slow = np.array([extra > SLOW * usual for *_, extra in spans])
    wrong = [int(slow[:cut].sum() + (~slow[cut:]).sum()) for cut in range(len(spans) + 1)]
    cut = int(np.argmin(wrong))
    if not 0 < cut < len(spans) or wrong[cut] > len(spans) / 10:
        draft.missing["PDE reach"] = "walks show no step along the address space"
        return
    low, high = spans[cut - 1][0], spans[cut][0]
    how = f"one 4K page in each 2M to 256M: walks beyond take over {SLOW} times as long"
    draft.values["PDE reach in bytes"] = Value((low * high) ** 0.5, low, high, how)
    pde = next((psc for psc in draft.machine().psc if psc.level == 2), None)
    if pde is None:
        draft.missing["PDE reach of the preset"] = "the preset has no PDE cache"
        return
    entries = 1 << round(float(np.log2((low * high) ** 0.5 / TWO_MIB)))
    draft.put("psc", pde.name, how, entries=entries, ways=min(entries, pde.ways or entries))
    _put_host_pdes(draft, entries, "ours: as many as were measured of the guest's")


def _put_host_pdes(draft: Draft, entries: int, why: str) -> None:
    """Set how many of the host's PDEs stay cached."""
    for psc in draft.file.get("guest", {}).get("host_psc", []):
        if psc["level"] == 2:
            psc["entries"] = entries
            psc["assumed"] = psc["assumed"] | {"entries": why}


def walkers(draft: Draft, points: Points) -> None:
    """Walks in flight: how often the fastest rate of independent chases goes into one walk."""
    said: Figures = predict(points["chains"][0].pattern, draft.machine()).figures
    floor = min(point.cycles for point in points["chains"])
    alone = points["chains"][0].cycles
    walking = said["walk_cycles"] / said["cycles"] * alone
    most = points["chains"][-1].pattern.chains
    how = f"{most} and fewer independent chases: {floor:.1f} cycles a walk at best"
    draft.values["walker count"] = Value(walking / floor, walking / floor / 1.1, alone / floor, how)
    draft.put("walker", "", how, count=min(max(round(walking / floor), 1), 64))


def _lowest(points: Sequence[Point], how: str) -> Value:
    """The lowest of some chases that should all take the same."""
    times = [point.cycles for point in points]
    return Value(min(times), min(times), max(float(np.median(p.passes)) for p in points), how)
