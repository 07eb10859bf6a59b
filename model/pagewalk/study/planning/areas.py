"""What each caller's areas are mapped with, what they could be, and what that saves and costs.

Rules: `pagewalk.linux.rules`; how vmallocinfo tells, `pagewalk.linux.observe.vmallocinfo`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct, field

from pagewalk.linux.geometry import geometry
from pagewalk.linux.observe.vmallocinfo import STACKS, Row, Vmallocinfo, is_huge
from pagewalk.linux.rules.callers import NEVER, TEXT, asks
from pagewalk.linux.rules.eligibility import Kernel, Request, decide, round_up

Standing = Literal["huge", "perhaps", "refused", "could", "vet", "never"]
"""huge: mapped by PMD leaves, as far as can be told. perhaps: may be. refused: asks for them, and has base
pages. could: a change of the caller alone would do. vet: so too, if it bears large leaves. never: cannot."""

CONVERTIBLE = ("htab_map_alloc", "array_map_alloc", "xfs_buf_alloc_backing_mem", "xfs_buf_alloc_vmalloc")
"""Callers of plain vmalloc whose memory is only read and written: a flag would do. The reference's section
3.2 names them (BPF hash and array maps, XFS buffers); the symbols of XFS are from memory."""

VETTED = (
    "whoever takes its pages apart, maps them to user space or changes their permissions must not get large "
    "leaves (the reason for the opt-in of 5.18)"
)


class CallerPlan(Struct, frozen=True, kw_only=True):
    """The areas of one caller that reach a PMD.

    Attributes
    ----------
    caller, module : str
    standing : str
        See `Standing`.
    why : str
    areas : int
    bytes : int
        Without guard pages; of huge areas as the kernel rounded them.
    base_pages, pmd_leaves : int
        STLB entries that all of it takes, mapped so.
    page_tables_saved : int
        Bytes of lowest-level tables that PMD leaves save, one for each.
    waste_low, waste_high : int
        Bytes that rounding costs, or would cost. Of huge areas only bounds are known: the request is not.
    just_above : list of int
        Sizes of areas that are one PMD above a power of two: likely an array and its header.
    largest : int
        Bytes of the largest area, for which gains are worked out.
    bytes_by_node : dict of str to int
        Where its memory is, as far as the file tells.
    """

    caller: str
    module: str = ""
    standing: Standing
    why: str
    areas: int
    bytes: int
    base_pages: int
    pmd_leaves: int
    page_tables_saved: int
    waste_low: int
    waste_high: int
    just_above: list[int]
    largest: int
    bytes_by_node: dict[str, int] = field(default_factory=dict)


class Small(Struct, frozen=True, kw_only=True):
    """What no leaf size changes: areas, and bytes without guard pages."""

    below_a_pmd: int = 0
    below_a_pmd_bytes: int = 0
    other_kinds: int = 0
    other_kinds_bytes: int = 0
    unpurged: int = 0
    unpurged_bytes: int = 0


def plan_areas(info: Vmallocinfo, kernel: Kernel) -> tuple[list[CallerPlan], Small]:
    """Sort all areas by what could map them.

    Returns
    -------
    list of CallerPlan
        One for each caller and standing, the largest first.
    Small
    """
    base, pmd = kernel.base_bytes, 1 << kernel.arch.pmd_shift if kernel.arch.pmd_shift else 0
    groups: dict[tuple[str, str, Standing, str], list[Row]] = defaultdict(list)
    sizes: dict[str, list[int]] = {"below_a_pmd": [], "other_kinds": [], "unpurged": []}
    for row in info.rows:
        payload = max(row.size_bytes - base, base)
        if row.kind == "unpurged":
            sizes["unpurged"].append(payload)
        elif row.kind != "vmalloc":
            sizes["other_kinds"].append(payload)
        elif not pmd or payload < pmd:
            sizes["below_a_pmd"].append(payload)
        else:
            standing, why = _standing(row, payload, info, kernel)
            groups[row.caller or "(no caller told)", row.module, standing, why].append(row)
    plans = [_plan(*key, rows=found, pmd=pmd, base=base) for key, found in groups.items()]
    counts = {key: len(found) for key, found in sizes.items()}
    totals = {f"{key}_bytes": sum(found) for key, found in sizes.items()}
    return sorted(plans, key=lambda plan: (-plan.bytes, plan.caller)), Small(**counts, **totals)


def _standing(row: Row, payload: int, info: Vmallocinfo, kernel: Kernel) -> tuple[Standing, str]:
    release = kernel.release
    allowed = decide(Request(payload, allow_huge=True), kernel)
    refusal = "" if allowed.attempts and allowed.attempts[0].shift == kernel.arch.pmd_shift else allowed.why
    whole = payload % (1 << kernel.arch.pmd_shift) == 0
    if (
        row.caller in TEXT
        and release.follows("rox-cache")
        and kernel.arch.name.startswith("x86-64")
        and whole
    ):
        return "perhaps", f"in {release.name} it may be a block of the cache for executable memory"
    if row.caller in NEVER or row.caller in STACKS or row.caller.startswith("pcpu_"):
        if row.caller not in CONVERTIBLE:
            return "never", NEVER.get(row.caller, "percpu chunks and stacks have base pages")
    elif not release.follows("opt-in") and release.follows("huge") and not refusal:
        if not whole:
            return "refused", "its size is no whole number of PMDs: it fell back, or opted out"
        return "perhaps", f"in {release.name} every caller asks that does not opt out"
    asking = asks(row.caller, release)
    if asking and refusal:
        return "refused", refusal
    if asking and not whole:
        return "refused", "asks, but its size is no whole number of PMDs: the attempt fell back to base pages"
    if asking:
        huge = is_huge(row, info.addresses, geometry(kernel.arch.name), release)
        if not huge:
            return "refused", "asks, but its address is no multiple of a PMD: the attempt fell back"
        where = "size and address fit" if info.addresses == "real" else "its size fits; addresses are hidden"
        return "huge", f"asks for PMD leaves in {release.name}, {where}"
    if row.caller in CONVERTIBLE:
        return "could", f"{NEVER.get(row.caller, 'plain vmalloc')}; VM_ALLOW_HUGE_VMAP would do" + (
            f", but {refusal}" if refusal else ""
        )
    if asking is None and whole and not refusal:
        return "perhaps", f"whether it asks in {release.name} is not written down; its size would fit"
    if refusal:
        return "vet", refusal
    return "vet", f"does not ask, or is not known to; {VETTED}"


def _plan(
    caller: str, module: str, standing: Standing, why: str, *, rows: Sequence[Row], pmd: int, base: int
) -> CallerPlan:
    sizes = [row.size_bytes - base for row in rows]
    nodes: Counter[str] = Counter()
    for row in rows:
        nodes.update({str(node): pages * base for node, pages in row.nodes})
    leaves = sum(round_up(size, pmd) // pmd for size in sizes)
    rounding = sum(round_up(size, pmd) - size for size in sizes)
    rounded = standing in ("huge", "perhaps")
    return CallerPlan(
        caller=caller,
        module=module,
        standing=standing,
        why=why,
        areas=len(sizes),
        bytes=sum(sizes),
        base_pages=sum(size // base for size in sizes),
        pmd_leaves=leaves,
        page_tables_saved=leaves * base,
        waste_low=0 if rounded or standing == "never" else rounding,
        waste_high=len(sizes) * (pmd - base) if rounded else 0 if standing == "never" else rounding,
        just_above=sorted(set(_just_above(sizes, pmd))) if rounded else [],
        largest=max(sizes),
        bytes_by_node=dict(nodes),
    )


def _just_above(sizes: Iterable[int], pmd: int) -> Iterable[int]:
    """Sizes of one PMD more than a power of two of at least two PMDs."""
    for size in sizes:
        rest = size - pmd
        if size % pmd == 0 and rest >= 2 * pmd and rest & (rest - 1) == 0:
            yield size
