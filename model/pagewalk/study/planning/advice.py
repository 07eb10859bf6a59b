"""What to do: recommendations with their gain, their cost, and the reason; the best first."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from pagewalk.linux.rules.eligibility import Kernel
from pagewalk.linux.rules.releases import release
from pagewalk.study.planning.areas import CallerPlan
from pagewalk.study.planning.gain import Gain
from pagewalk.study.planning.memory import SPLIT_SHARE, BlocksPlan, DirectMapPlan, TablePlan

FRAGMENTED = 0.9
"""Part of free memory in blocks below a PMD above which large attempts are at risk. Ours."""

WORTH = 0.001
"""Walk cycles for one access below which nothing is saved that is worth a change. Ours."""

MIB = 1 << 20


class Recommendation(Struct, frozen=True, kw_only=True):
    """One thing to do, or to leave.

    Attributes
    ----------
    action : str
        leave; convert (let a caller ask); vet (find out whether it may); resize; upgrade; boot (a parameter);
        watch.
    subject : str
        Caller, table, or part of the machine.
    what : str
        A sentence.
    why : str
    saved_cycles : float
        Walk cycles for one access to the subject's memory; 0 where that is not worked out.
    saved_bytes : int
        Memory gained, negative where it costs some.
    """

    action: str
    subject: str
    what: str
    why: str
    saved_cycles: float = 0.0
    saved_bytes: int = 0


def advise(
    kernel: Kernel,
    callers: Sequence[CallerPlan],
    gains: dict[str, Gain],
    tables: Sequence[TablePlan],
    direct_map: DirectMapPlan | None,
    blocks: BlocksPlan | None,
) -> list[Recommendation]:
    """All recommendations: what saves most cycles first, then what saves most memory; what to leave last."""
    found = [
        *_boot(kernel, callers, blocks),
        *(
            made
            for caller in callers
            for made in _of_caller(caller, gains.get(caller.caller), kernel, blocks)
        ),
        *_of_tables(tables, direct_map, kernel),
        *_of_sizes(tables, gains, kernel),
        *_of_direct_map(direct_map, gains.get("direct map"), kernel),
    ]
    return sorted(
        found,
        key=lambda one: (one.action == "leave", one.action == "watch", -one.saved_cycles, -one.saved_bytes),
    )


def _boot(
    kernel: Kernel, callers: Sequence[CallerPlan], blocks: BlocksPlan | None
) -> Iterator[Recommendation]:
    large = [caller for caller in callers if caller.standing in ("huge", "perhaps")]
    if "nohugevmalloc" in kernel.parameters:
        barred = [caller for caller in callers if caller.standing == "refused"]
        yield Recommendation(
            action="boot",
            subject="nohugevmalloc",
            what="Boot without nohugevmalloc",
            why=f"{len(barred)} callers ask for PMD leaves and get base pages: "
            + (", ".join(caller.caller for caller in barred) or "none that is seen here"),
            saved_bytes=sum(caller.page_tables_saved - caller.waste_low for caller in barred),
        )
    elif large and blocks and (short := _short(max(caller.pmd_leaves for caller in large), blocks)):
        yield Recommendation(
            action="watch",
            subject="free memory",
            what="Watch compaction; nohugevmalloc is the way out if allocations of 2 MiB and more stall",
            why=short + ". A large attempt reclaims and compacts before it falls back to base pages",
        )
    elif large:
        yield Recommendation(
            action="leave",
            subject="nohugevmalloc",
            what="Leave huge vmalloc on",
            why=f"areas that have or may have PMD leaves: {sum(caller.areas for caller in large)}; "
            + ("blocks for more are free" if blocks else "free blocks are not known"),
        )


def _short(needed: int, blocks: BlocksPlan) -> str:
    free = sum(blocks.free.values())
    if free < needed:
        return f"{free:,} free blocks of order {blocks.order}, and the largest caller's areas take {needed:,}"
    if blocks.unusable > FRAGMENTED:
        return f"{100 * blocks.unusable:.0f} % of free memory is in blocks below order {blocks.order}"
    return ""


def _of_caller(
    caller: CallerPlan, gain: Gain | None, kernel: Kernel, blocks: BlocksPlan | None
) -> Iterator[Recommendation]:
    saved = gain.saved if gain else 0.0
    memory = caller.page_tables_saved - caller.waste_low
    entries = f"{caller.base_pages:,} base pages become {caller.pmd_leaves:,} PMD leaves"
    if caller.just_above:
        sizes = ", ".join(f"{size / MIB:g} MiB" for size in caller.just_above)
        yield Recommendation(
            action="resize",
            subject=caller.caller,
            what=f"Keep its requests at a power of two: areas of {sizes} are one PMD above one",
            why="an array of a power of two and its header is rounded up by a whole PMD, less the header; "
            "what was asked for is not told, so see to it first",
            saved_bytes=len(caller.just_above) * ((1 << kernel.arch.pmd_shift) - kernel.base_bytes),
        )
    if caller.standing in ("could", "vet") and saved > WORTH:
        reasons = [caller.why, entries, _short(caller.pmd_leaves, blocks) if blocks else ""]
        if kernel.nodes > 1:
            reasons.append("its memory is spread over nodes by 2 MiB at a time instead of by base pages")
        yield Recommendation(
            action="convert" if caller.standing == "could" else "vet",
            subject=caller.caller,
            what="Let it ask for PMD leaves"
            if caller.standing == "could"
            else "Find out whether it may have PMD leaves",
            why=". ".join(reason for reason in reasons if reason),
            saved_cycles=saved,
            saved_bytes=memory,
        )
    elif caller.standing in ("could", "vet"):
        why = "its gain was not worked out: it is among the smaller ones"
        if gain and gain.basis == "random":
            pages = f"{caller.largest // kernel.base_bytes:,}"
            why = f"the {pages} base pages of its largest area fit the STLB: alone, it has nothing to gain"
        elif gain:
            why = "in the recording it saves no walk cycle"
        yield Recommendation(
            action="leave",
            subject=caller.caller,
            what="Leave its base pages",
            why=f"{entries}, but {why}; rounding would cost {caller.waste_low / MIB:.3g} MiB",
        )
    elif caller.standing == "refused" and "nohugevmalloc" not in kernel.parameters:
        upgrade = "nodes" in caller.why
        yield Recommendation(
            action="upgrade" if upgrade else "watch",
            subject=caller.caller,
            what="Linux 6.13 and later give it PMD leaves"
            if upgrade
            else "Its attempts fell back to base pages",
            why=f"{caller.why}. {entries}",
            saved_cycles=saved,
            saved_bytes=memory,
        )


def _of_tables(
    tables: Sequence[TablePlan], direct_map: DirectMapPlan | None, kernel: Kernel
) -> Iterator[Recommendation]:
    pmd = 1 << kernel.arch.pmd_shift if kernel.arch.pmd_shift else 0
    linear = [table for table in tables if table.place == "linear" and table.bytes >= pmd > 0]
    later = [table for table in tables if table.since]
    if later:
        first = max(later, key=lambda table: release(table.since)).since
        why = f"{kernel.release.name} wants a PMD for each of {kernel.nodes} nodes"
        yield Recommendation(
            action="upgrade",
            subject="boot hash tables",
            what=f"Linux {first} and later map these by PMD leaves: {_sizes(later)}",
            why=why if kernel.release.follows("divide-by-nodes") else f"{kernel.release.name} does not yet",
            saved_bytes=sum(table.bytes // pmd * kernel.base_bytes for table in later),
        )
    if linear:
        always = ", as on every machine with one node" if kernel.nodes == 1 else ""
        share = (
            f", {100 * (1 - direct_map.share_of_base_pages):.1f} % of which has large leaves"
            if direct_map
            else ""
        )
        yield Recommendation(
            action="leave",
            subject="boot hash tables",
            what="Huge vmalloc changes nothing for them",
            why=f"they are in the direct map{share}{always}: {_sizes(linear)}",
        )


def _of_sizes(
    tables: Sequence[TablePlan], gains: dict[str, Gain], kernel: Kernel
) -> Iterator[Recommendation]:
    """Tables that would get PMD leaves if they were larger, by their boot parameters."""
    for table in tables:
        gain = gains.get(table.name)
        if not table.enough or gain is None:
            continue
        size = table.bytes_enough
        leaves, lowest = (-(-one >> kernel.arch.pmd_shift) for one in (size, table.bytes))
        worth = gain.saved > WORTH
        yield Recommendation(
            action="boot" if worth else "leave",
            subject=table.name,
            what=f"Boot with {table.parameter}={table.enough}" if worth else "Leave its size",
            why=f"with {table.parameter}={table.enough} it has {size / MIB:g} MiB instead of "
            f"{table.bytes / MIB:g}, which {kernel.release.name} maps by {leaves} PMD leaves"
            + ("" if worth else "; but its base pages fit the STLB: alone, it has nothing to gain"),
            saved_cycles=gain.saved if worth else 0.0,
            saved_bytes=table.bytes - size + lowest * kernel.base_bytes if worth else 0,
        )


def _sizes(tables: Sequence[TablePlan]) -> str:
    return ", ".join(f"{table.name} {table.bytes / MIB:g} MiB" for table in tables)


def _of_direct_map(
    found: DirectMapPlan | None, gain: Gain | None, kernel: Kernel
) -> Iterator[Recommendation]:
    if found is None:
        return
    counted = f", {sum(found.splits.values()):,} splits since boot" if found.splits else ""
    share = f"{100 * found.share_of_base_pages:.2f} % of the direct map has base pages{counted}"
    if found.share_of_base_pages <= SPLIT_SHARE:
        yield Recommendation(action="leave", subject="direct map", what="Leave it", why=share)
        return
    ways = [
        f"Linux {rule} {does}"
        for rule, key, does in (
            ("5.18", "bpf-pack", "packs BPF programs"),
            ("6.15", "rox-cache", "puts text of modules and BPF into blocks of a PMD"),
            ("6.15", "collapse", "merges what set_memory_rox split"),
        )
        if not kernel.release.follows(key)
    ]
    yield Recommendation(
        action="upgrade" if ways else "watch",
        subject="direct map",
        what="Look for what splits it: BPF programs, modules, permissions of pages",
        why="; ".join([share, *ways]),
        saved_cycles=gain.saved if gain else 0.0,
        saved_bytes=found.page_tables,
    )
