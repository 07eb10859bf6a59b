"""Set the model's predictions beside what was measured: errors, and verdicts by the stated bands."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple, cast

import msgspec
from msgspec import Struct, field

from pagewalk import __version__
from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine, Memory, Walker
from pagewalk.linux.rules.eligibility import Kernel
from pagewalk.linux.rules.hash_tables import Boot, boot_tables
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release
from pagewalk.replay.together.shape import figures
from pagewalk.study.validation.case import (
    DEFAULT_BAND,
    EACH,
    FOUND_IN,
    KNEES,
    REACHES,
    AnyPattern,
    BootTables,
    Case,
    Chase,
    Measured,
    Recording,
    Unpredicted,
    Updates,
)
from pagewalk.study.validation.predict import Counted, counted, knee, prediction
from pagewalk.study.validation.read import changed, machine_of, points


class Row(Struct, frozen=True, kw_only=True):
    """One measured value and its prediction.

    Attributes
    ----------
    quantity : str
    per : {"access", "run"}
    at, over, less : dict
        As of `Measured`.
    measured, predicted : float
    sampling_error : float
        One standard error of `predicted`; 0 where nothing was sampled.
    error : float
        (predicted - measured) / measured; for a measured 0, predicted - measured.
    low, high : float
        The predictions that count as right.
    inside : bool
    """

    quantity: str
    per: str
    at: dict[str, Any]
    over: dict[str, Any]
    measured: float
    predicted: float
    sampling_error: float
    error: float
    low: float
    high: float
    inside: bool
    less: dict[str, Any] = field(default_factory=dict)


class Outcome(Struct, frozen=True, kw_only=True):
    """A case with its predictions.

    Attributes
    ----------
    name, title, source, note : str
        As of `Case`.
    machine, machine_sha256 : str
        Its id; "" where there is none.
    sets : list of str
        Not empty: the case was used to set these parameters and validates nothing.
    verdict : {"inside", "outside", "not predicted"}
        inside: every value is within its band.
    why : str
        Why nothing was predicted.
    rows : list of Row
    """

    name: str
    title: str
    source: str
    verdict: Literal["inside", "outside", "not predicted"]
    machine: str = ""
    machine_sha256: str = ""
    sets: list[str] = field(default_factory=list)
    why: str = ""
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def validates(self) -> bool:
        """Whether it counts: something was predicted, and nothing was set by it."""
        return self.verdict != "not predicted" and not self.sets

    @property
    def inside(self) -> int:
        """Values within their band."""
        return sum(row.inside for row in self.rows)

    @property
    def median_error(self) -> float:
        """Median of the sizes of the errors."""
        return median(abs(row.error) for row in self.rows)

    @property
    def worst_error(self) -> float:
        """The greatest size of an error."""
        return max(abs(row.error) for row in self.rows)


class Validation(Struct, frozen=True, kw_only=True):
    """All cases of a run."""

    schema: Literal["pagewalk.validation/1"] = "pagewalk.validation/1"
    pagewalk: str = __version__
    cases: list[Outcome]


def encode(validation: Validation) -> bytes:
    """As indented JSON, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(validation), indent=1) + b"\n"


class _Predicted(NamedTuple):
    value: float
    error: float


Known = dict[tuple[bytes, AnyPattern, str], list[Counted] | int]
"""What a machine counts (`_counts_alike`), pattern, "" or the level of a knee -> what was counted, or the
knee: each is replayed once for all cases."""


class Predictor:
    """Predictions of one machine."""

    def __init__(self, machine: Machine, folder: str, known: Known) -> None:
        self.machine, self.folder, self.known = machine, folder, known

    def value(self, pattern: AnyPattern, entry: Measured) -> _Predicted:
        """Give what an entry measured, under a pattern: a quantity, a ratio of two, or a difference."""
        here = self._quantity(pattern, entry)
        if entry.over:
            return _ratio(here, self._quantity(changed(pattern, entry.over, "over"), entry))
        if entry.less:
            return _difference(here, self._quantity(changed(pattern, entry.less, "less"), entry))
        return here

    def _quantity(self, pattern: AnyPattern, entry: Measured) -> _Predicted:
        name = entry.quantity
        if name in KNEES + REACHES:
            asked = cast(Chase, pattern)
            found_knee = self._knee(asked, name.partition("_")[0])
            return _Predicted(found_knee * (asked.stride if name in REACHES else 1), 0.0)
        assert isinstance(pattern, Chase | Updates | Recording)
        if isinstance(pattern, Recording):
            pattern = _beside(pattern, self.folder)
        key = _counts_alike(self.machine, bool(pattern.host)), pattern, ""
        if key not in self.known:
            self.known[key] = counted(pattern, self.machine)
        found = prediction(pattern, self.machine, cast(list[Counted], self.known[key]))
        if name not in found.figures:
            raise self._missing(name)
        once = entry.per == "access" or name in EACH
        times = 1 if once else getattr(pattern, "accesses", 0) or found.accesses
        return _Predicted(found.figures[name] * times, found.error.get(name, 0.0) * times)

    def _missing(self, name: str) -> BadInput:
        if name == "ns":
            return BadInput("ns", "the machine has no clock_ghz", "give it, or measure cycles")
        if name.startswith(FOUND_IN):
            places = ", ".join([*(cache.name for cache in self.machine.cache), "memory"])
            return BadInput(name[:60], "the machine has no such cache", f"it has {places}")
        return BadInput(name, "nothing walks here", "measure another quantity")

    def _knee(self, pattern: Chase, level: str) -> int:
        """Walk caches and data caches have no part in it."""
        bare = msgspec.structs.replace(self.machine, psc=[], cache=[])
        key = _counts_alike(bare, False), pattern, level
        if key not in self.known:
            self.known[key] = knee(pattern, bare, level)
        return cast(int, self.known[key])


def _counts_alike(machine: Machine, guest: bool) -> bytes:
    """The figures that decide what is counted: not latencies and walkers, but for the host's cycles."""
    names = [cache.name for cache in machine.cache]
    enters = str(names.index(machine.walker.enters)) if machine.walker.enters in names else ""
    alike = msgspec.structs.replace(
        machine, id="", sha256="", clock_ghz=0, unknown={}, perf_events={}, flush=None
    )
    if not guest and not machine.guest:
        caches = [msgspec.structs.replace(cache, latency_cycles=0) for cache in machine.cache]
        alike = msgspec.structs.replace(alike, cache=caches, memory=Memory(latency_cycles=0), walker=Walker())
    return figures(alike) + enters.encode()


def validate(
    cases: Sequence[Case],
    progress: Callable[[int], None] | None = None,
) -> Validation:
    """Predict every case.

    Parameters
    ----------
    cases : sequence of Case
    progress : callable, optional
        Called with 1 after each measured value (`values`).

    Raises
    ------
    BadInput
        A machine or a trace that a case names cannot be read, or the two do not fit.
    """
    known = Known()
    return Validation(cases=[outcome(case, known, progress) for case in cases])


def values(case: Case) -> int:
    """Measured values of a case."""
    return sum(len(points(entry)) for entry in case.measured)


def outcome(case: Case, known: Known, progress: Callable[[int], None] | None = None) -> Outcome:
    """Predict one case, keeping what was replayed in `known`; raises as `validate`."""
    about = Outcome(
        name=case.name,
        title=case.title,
        source=case.source,
        sets=case.sets,
        note=case.note,
        verdict="not predicted",
    )
    if isinstance(case.pattern, Unpredicted):
        return msgspec.structs.replace(about, why=case.pattern.why)
    if isinstance(case.pattern, BootTables):
        rows = _boot_rows(case, case.pattern)
        if progress is not None:
            progress(len(rows))
    else:
        machine = machine_of(case)
        about = msgspec.structs.replace(about, machine=machine.id, machine_sha256=machine.sha256)
        predictor = Predictor(machine, case.folder, known)
        try:
            rows = []
            for entry in case.measured:
                for row in _rows(entry, case.pattern, predictor):
                    rows.append(row)
                    if progress is not None:
                        progress(1)
        except BadInput as error:
            raise BadInput(f"{case.name}: {error.where}", error.what, error.mend) from None
    verdict: Literal["inside", "outside"] = "inside" if all(row.inside for row in rows) else "outside"
    return msgspec.structs.replace(about, rows=rows, verdict=verdict)


def _beside(pattern: Recording, folder: str) -> Recording:
    """A trace's path is relative to the case's file."""
    if ":" in pattern.trace:
        return pattern
    return msgspec.structs.replace(pattern, trace=str(Path(folder) / pattern.trace))


def _rows(entry: Measured, pattern: AnyPattern, predictor: Predictor) -> Iterator[Row]:
    measured = entry.values or [cast(float, entry.value)]
    for keys, value in zip(points(entry), measured, strict=True):
        here = changed(pattern, keys, "at")
        step = here.stride if entry.quantity in REACHES and isinstance(here, Chase) else 1
        yield _row(entry, keys, value, predictor.value(here, entry), step)


def _ratio(above: _Predicted, below: _Predicted) -> _Predicted:
    if below.value == 0:
        raise BadInput("over", "the figure to divide by is 0", "measure another quantity")
    value = above.value / below.value
    shares = (part.error / part.value if part.value else 0.0 for part in (above, below))
    return _Predicted(value, abs(value) * sum(share**2 for share in shares) ** 0.5)


def _difference(more: _Predicted, fewer: _Predicted) -> _Predicted:
    return _Predicted(more.value - fewer.value, (more.error**2 + fewer.error**2) ** 0.5)


def _row(entry: Measured, at: dict[str, Any], measured: float, predicted: _Predicted, step: int = 1) -> Row:
    low, high = band(entry, measured, step)
    difference = predicted.value - measured
    return Row(
        quantity=entry.quantity,
        per=entry.per,
        at=at,
        over=entry.over,
        less=entry.less,
        measured=measured,
        predicted=predicted.value,
        sampling_error=predicted.error,
        error=difference / abs(measured) if measured else difference,
        low=low,
        high=high,
        inside=low <= predicted.value <= high,
    )


def band(entry: Measured, measured: float, step: int) -> tuple[float, float]:
    """The predictions that count as right for a measured value; knees may be off by a `step`."""
    if isinstance(entry.band, list):
        return entry.band[0], entry.band[1]
    if entry.band is None and entry.quantity in KNEES + REACHES:
        return measured - step, measured + step
    share = DEFAULT_BAND if entry.band is None else entry.band
    return measured - share * abs(measured), measured + share * abs(measured)


def _boot_rows(case: Case, pattern: BootTables) -> list[Row]:
    """Hash tables that Linux sizes at boot, by the name that it logs."""
    kernel = Kernel(release(pattern.kernel), hooks("x86-64"), nodes=pattern.nodes)
    made = {t.name: t for t in boot_tables(Boot(kernel, pattern.memory, pattern.cpus))}
    rows = []
    for entry in case.measured:
        key, _, name = entry.quantity.partition(" ")
        if name not in made:
            raise BadInput(f"{case.name}: {entry.quantity}", "no such table", f"there are {', '.join(made)}")
        value = made[name].entries if key == "entries" else made[name].size_bytes
        rows.append(_row(entry, {}, cast(float, entry.value), _Predicted(value, 0.0)))
    return rows
