"""How many instructions a trace stands for, where its recorder tells."""

from typing import NamedTuple

import numpy as np

from pagewalk.trace.trace import FETCH, Trace

EACH: dict[str, object] = {"fetches": "one for each instruction"}
"""In `Trace.about`: its fetches count instructions. Kernel recordings have fetches of new code pages only."""


class Instructions(NamedTuple):
    """How many, None where nobody tells it, and how that is known."""

    number: int | None
    told_by: str


UNKNOWN = Instructions(None, "")


def instructions(trace: Trace) -> Instructions:
    """Count a trace's instructions; reads its flags once where they are needed.

    Fetches count where each instruction has one. A recording of ``tools/kernel-trace`` has counters of its
    whole window: instructions, and loads and stores by the half of the address space that they went to. A
    trace without user addresses stands for the kernel's instructions, in proportion to its accesses; of a
    whole window that is the counter itself, of a part an estimate.
    """
    about = trace.about or {}
    counters = about.get("plugin_counters_whole_window")
    if all(about.get(key) == value for key, value in EACH.items()) and "flags" in trace.columns:
        return Instructions(_fetches(trace), "a fetch for each")
    if not isinstance(counters, dict) or not all(isinstance(counters.get(key), int) for key in _COUNTERS):
        return UNKNOWN
    halves = ("kernel", "user") if about.get("user_half_included") else ("kernel",)
    executed = sum(counters[f"insn_{half}"] for half in halves)
    accessed = sum(counters[f"{kind}_{half}_half"] for kind in ("load", "store") for half in halves)
    if not accessed:
        return UNKNOWN
    here = trace.accesses - (_fetches(trace) if "flags" in trace.columns else 0)
    whose = "" if "user" in halves else "of the kernel, "
    part = "" if here == accessed else f"; an estimate: {executed / accessed:.2f} for each access"
    return Instructions(round(here * executed / accessed), f"{whose}by the recorder's counters{part}")


_COUNTERS = (
    *("insn_kernel", "insn_user"),
    *("load_kernel_half", "store_kernel_half", "load_user_half", "store_user_half"),
)


def _fetches(trace: Trace) -> int:
    found = 0
    for chunk in trace.chunks("flags"):
        if chunk.flags is not None:
            found += int(np.count_nonzero(chunk.flags & np.uint8(FETCH)))
    return found
