"""What PMD leaves save an area that is accessed at random, or as a recording accessed it.

The engine replays uniformly random words of an area of that size, with the TLBs to itself. A table that is
probed at random gains about that; one that is read in order, far less; where others fill the TLBs, small
areas gain too.
"""

from collections.abc import Callable, Iterable
from functools import cache

from msgspec import Struct

from pagewalk.hardware.load import load
from pagewalk.replay.result import Result
from pagewalk.study.compare import comparisons
from pagewalk.study.replays import replays, subject

LARGEST_BYTES = 1 << 32
"""Of an area that is replayed; larger ones count as this. Ours, to be done in seconds."""


class Gain(Struct, frozen=True, kw_only=True):
    """Walk cycles.

    Attributes
    ----------
    base, pmd : float
        For one access, under each mapping.
    accesses_per_second : float
        Assumed; 0 where `basis` is a recording, whose own accesses count.
    cpu_share : float
        Part of one CPU's cycles that the change saves at that rate; 0 where rate or clock is not known.
    basis : {"random", "recorded"}
    """

    base: float
    pmd: float
    accesses_per_second: float
    cpu_share: float
    basis: str

    @property
    def saved(self) -> float:
        """Cycles saved for one access."""
        return self.base - self.pmd


@cache
def _random(size: int, processor: str) -> tuple[float, float]:
    """Walk cycles for one access under base and pmd, in the second half of the replay: TLBs are warm then."""
    words = min(size, LARGEST_BYTES)
    accesses = max(200_000, words >> 10)
    opened = subject(f"synth:uniform?size={words}&accesses={accesses}&seed=1")
    base, pmd = (
        sum(found.windows.walk_cycles[len(found.windows.walk_cycles) // 2 :])
        for found in replays(opened, [load(processor)], ["base", "pmd"])
    )
    return 2 * base / accesses, 2 * pmd / accesses


def enlarged(size: int, larger: int, processor: str, accesses_per_second: float) -> Gain:
    """Gain of an area of `size` bytes in base pages that becomes one of `larger` bytes by PMD leaves."""
    before, after = (random_access([one], processor, accesses_per_second)[one] for one in (size, larger))
    saved = before.base - after.pmd
    share = after.cpu_share * saved / after.saved if after.saved else 0.0
    return Gain(
        base=before.base,
        pmd=after.pmd,
        accesses_per_second=accesses_per_second,
        cpu_share=round(share, 6),
        basis="random",
    )


def random_access(
    sizes: Iterable[int],
    processor: str,
    accesses_per_second: float,
    progress: Callable[[int], None] | None = None,
) -> dict[int, Gain]:
    """Gains of areas of these sizes in bytes, accessed at random at that rate; `progress(1)` after each."""
    clock_hz = load(processor).clock_ghz * 1e9
    gains = {}
    for size in sorted(set(sizes)):
        base, pmd = _random(size, processor)
        share = (base - pmd) * accesses_per_second / clock_hz if clock_hz else 0.0
        gains[size] = Gain(
            base=round(base, 3),
            pmd=round(pmd, 3),
            accesses_per_second=accesses_per_second,
            cpu_share=round(share, 6),
            basis="random",
        )
        if progress is not None:
            progress(1)
    return gains


def recorded_access(result: Result) -> dict[str, Gain]:
    """Gains by caller, for one access of the whole recording; of its first machine with two mappings."""
    for pair in comparisons(result):
        accesses = pair.before.counts["accesses"]
        return {
            caller.name: Gain(
                base=round(caller.walk_cycles[0] / accesses, 6),
                pmd=round(caller.walk_cycles[1] / accesses, 6),
                accesses_per_second=0.0,
                cpu_share=0.0,
                basis="recorded",
            )
            for caller in pair.callers
        }
    return {}
