"""The model once more, in plain Python: slow, and simple enough to be believed.

Written from the specification (design.md sections 2, 4, 5 and 6, the docstrings of `hardware.machine` and
`linux.mapping`), not from the engine. Everything is a list, a dict or an integer; each access is followed
through every structure, one at a time. `test_reference.py` checks it against cases worked out by hand.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pagewalk.hardware.machine import Machine, Psc, Tlb
from pagewalk.linux.mapping import Mapping
from pagewalk.trace.trace import FLUSH_LOCAL, FLUSH_RANGE, RUNNING, SWITCH, UNMAP
from reference_caches import Caches, default_entry_address, default_host_address
from reference_sets import Array, index_value

SKIP, LOAD, STORE, FETCH = -1, 0, 1, 2
"""Kinds of access; a skipped record only takes up a position."""

KIND = {LOAD: "load", STORE: "store", FETCH: "fetch"}
LEVEL = {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"}


# ---------------------------------------------------------------- sizes, and who takes them


def shift_of(size: str) -> int:
    """log2 of a size as machines write it: 4K, 2M, 1G."""
    return int(size[:-1]).bit_length() - 1 + {"K": 10, "M": 20, "G": 30}[size[-1]]


def candidates(arrays: Iterable[Array], kind: int, leaf: int) -> tuple[list[Array], int]:
    """The arrays of one level that take a leaf for this kind of access, and the size of its entry there."""
    serving = [array for array in arrays if KIND[kind] in array.description.serves]
    held = {
        size
        for array in serving
        for size in ([shift_of(name) for name in array.description.holds] or [leaf])
        if size <= leaf
    }
    if not held:
        return [], leaf
    size = max(held)
    fit = [a for a in serving if not a.description.holds or size in map(shift_of, a.description.holds)]
    return fit, size


# ---------------------------------------------------------------- one CPU


class Cpu:
    """The private structures of one CPU."""

    def __init__(self, machine: Machine) -> None:
        def tlbs(level: int) -> list[Array]:
            return [tlb(each) for each in machine.tlb if each.level == level]

        def tlb(each: Tlb) -> Array:
            return Array(each, each.entries, each.ways, each.policy)

        def pscs(each: Sequence[Psc]) -> list[Array]:
            return [Array(p, p.entries, p.ways, p.policy) for p in sorted(each, key=lambda p: p.level)]

        self.l1, self.stlb = tlbs(1), tlbs(2)
        self.psc = pscs(machine.psc)
        guest = machine.guest
        self.host_psc = pscs(guest.host_psc) if guest else []
        self.nested = (
            Array(guest, guest.nested_entries, guest.nested_ways) if guest and guest.nested_entries else None
        )
        self.spaces: list[int] = []

    def drop(self, unwanted_tlb: Callable[[Any], bool], unwanted_psc: Callable[[Any], bool]) -> int:
        """Drop entries; returns how many TLB entries went."""
        for array in self.psc:
            array.drop(unwanted_psc)
        return sum(array.drop(unwanted_tlb) for array in self.l1 + self.stlb)


# Keys. TLB: (set, space, shift, page number of the entry). PSC: (set, space, address >> entry shift).
# Data caches: (set, line).


def tlb_key(
    array: Array, page: int, size: int, leaf: int, contiguous: int, base: int, space: int
) -> tuple[int, ...]:
    """The entry that `array` would keep for a 4-KiB page number: its set, space, shift and page number."""
    coalesce = array.description.coalesce
    shift = size
    if coalesce > 1 and leaf == base:
        shift = min(base + coalesce.bit_length() - 1, contiguous)
    number = page << 12 >> shift
    index = array.description.index
    return (number % array.sets if index == "modulo" else index_value(index, number), space, shift, number)


def within(inner: tuple[int, ...], outer: tuple[int, ...]) -> bool:
    """Whether the addresses of one TLB entry lie in those of another of the same space."""
    _, space, shift, number = inner
    return space == outer[1] and shift <= outer[2] and number >> (outer[2] - shift) == outer[3]


def everything(key: Any) -> bool:
    return True


def not_global(key: Any) -> bool:
    return bool(key[1] != 0)


def switch_on(cpu: Cpu, slots: int, space: int) -> int:
    """Run another address space (a kernel thread, 0, borrows the old one); returns how many entries went."""
    if space == 0:
        return 0
    if slots == 0:
        return cpu.drop(not_global, not_global)
    recent = [space, *(other for other in cpu.spaces if other != space)]
    cpu.spaces, fallen = recent[:slots], recent[slots:]
    return cpu.drop(lambda key: key[1] in fallen, lambda key: key[1] in fallen)


def flush_on(
    cpu: Cpu, machine: Machine, kind: int, start: int, end: int, base: int, moved: dict[Any, int]
) -> tuple[int, int]:
    """Flush or unmap on one CPU; returns the TLB entries dropped, and cycles.

    The range is where the trace has it; `moved` says by how many bytes the mapping has moved an entry.
    """
    cost = machine.flush
    pages = (end + (1 << base) - 1 >> base) - (start >> base)
    if kind in (FLUSH_RANGE, UNMAP) and (cost is None or pages <= cost.ceiling_pages):

        def touched(key: Any) -> bool:
            if key[1:] not in moved:  # what a walk remembers
                return False
            first = (key[3] << key[2]) - moved[key[1:]]
            return bool(first < end and first + (1 << key[2]) > start)

        dropped = cpu.drop(touched, everything)
        return dropped, pages * cost.page_cycles if cost else 0
    unwanted = not_global if kind == FLUSH_LOCAL else everything
    return cpu.drop(unwanted, unwanted), cost.full_cycles if cost else 0


def happen(
    event: tuple[int, ...],
    all_cpus: list[Cpu],
    machine: Machine,
    base: int,
    moved: dict[Any, int],
    counts: Counter[str],
    cycles: Counter[str],
) -> None:
    """One event on the CPUs that it names."""
    _, kind, target, space, start, end = event
    if kind != RUNNING:
        counts["context_switches" if kind == SWITCH else "flushes"] += 1
    for cpu in all_cpus if target < 0 else [all_cpus[target]]:
        if kind == RUNNING and machine.spaces.slots == 0:
            continue
        if kind in (SWITCH, RUNNING):
            counts["entries_flushed"] += switch_on(cpu, machine.spaces.slots, space)
        else:
            dropped, spent = flush_on(cpu, machine, kind, start, end, base, moved)
            counts["entries_flushed"] += dropped
            cycles["flush"] += spent


# ---------------------------------------------------------------- walks


def psc_lookup(
    pscs: list[Array], address: int, shift: Callable[[int], int], leaf: int, top: int, space: int
) -> Any:
    """Probe from the lowest level that the leaf leaves; returns the first level to read and the hit."""
    missed = []
    for psc in pscs:
        if psc.description.level <= leaf:
            continue
        number = address >> shift(psc.description.level)
        key = (number % psc.sets, space, number)
        if psc.hit(key):
            break
        missed.append((psc, key))
    else:
        psc = None
    for other, key in missed:
        other.put(key)
    return (top if psc is None else psc.description.level - 1), psc


class Walks:
    """Every walk as the list of its references: (level read, cache level that had it)."""

    def __init__(
        self, machine: Machine, mapping: Mapping, caches: Caches, entry_address: Any, host_address: Any
    ) -> None:
        self.machine, self.geometry, self.caches = machine, mapping.geometry, caches
        self.entry_address = entry_address or default_entry_address(mapping.geometry)
        self.host_address = host_address or default_host_address
        self.psc_hits: Counter[str] = Counter()
        self.done: list[list[tuple[str, str]]] = []
        self.cycles: list[int] = []
        self.cycles_by_level: Counter[str] = Counter()

    def read(self, number: int, address: int, level: str) -> None:
        place = self.caches.read(number, address, "walk")
        self.done[-1].append((level, self.caches.names[place]))
        self.cycles[-1] += self.caches.latency[place]
        self.cycles_by_level[level] += self.caches.latency[place]

    def host(self, number: int, cpu: Cpu, address: int) -> None:
        """Translate a guest-physical address by the nested TLB or the host's tables."""
        guest = self.machine.guest
        assert guest is not None
        host_shift = shift_of(guest.host_leaf)
        if cpu.nested is not None:
            page = address >> host_shift
            key = (page % cpu.nested.sets, page)
            if cpu.nested.hit(key):
                return
            cpu.nested.put(key)
        leaf = {12: 1, 21: 2, 30: 3}[host_shift]
        first, _ = psc_lookup(
            cpu.host_psc, address, lambda level: 12 + 9 * (level - 1), leaf, guest.host_levels, 0
        )
        for level in range(first, leaf - 1, -1):
            self.read(number, self.host_address(level, address), "host")

    def walk(self, number: int, cpu: Cpu, page: int, leaf_shift: int, frame: int, space: int) -> None:
        """One walk for a 4-KiB page number on one CPU."""
        self.done.append([])
        self.cycles.append(self.machine.walker.start_cycles)
        leaf = next(leaf.level for leaf in self.geometry.leaves if leaf.shift == leaf_shift)
        first, psc = psc_lookup(
            cpu.psc, page << 12, self.geometry.entry_shift, leaf, self.geometry.levels, space
        )
        if psc is not None:
            self.psc_hits[psc.description.name] += 1
        combined = self.machine.guest is not None and self.machine.guest.combined_psc
        for level in range(first, leaf - 1, -1):
            address = self.entry_address(level, page, space)
            if self.machine.guest is not None and not (level == first and psc is not None and combined):
                self.host(number, cpu, address)
            self.read(number, address, LEVEL[level])
        if self.machine.guest is not None:
            self.host(number, cpu, frame << 12)


# ---------------------------------------------------------------- the replay


def place(
    machine: Machine,
    arrays: list[Array],
    kind: int,
    page: int,
    leaf: int,
    contiguous: int,
    base: int,
    space: int,
) -> tuple[Array, tuple[int, ...]] | None:
    """The array of one level that takes this access, and its key there; None where no array serves it."""
    fit, size = candidates(arrays, kind, leaf)
    if not fit:
        return None
    array = fit[index_value(machine.choose, page << 12 >> size) % len(fit)] if len(fit) > 1 else fit[0]
    return array, tlb_key(array, page, size, leaf, contiguous, base, space)


def remembered(array: Array, page: int, leaf: int, table: int, frame: int, space: int) -> list[Any]:
    """What a guest's walk keeps among translations: its PDE, the table, the host's PDEs of both frames.

    `table` is the frame of the table that holds the leaf, `leaf` its level; keys are of the array.
    """
    index = array.description.index

    def key(kind: str, number: int) -> tuple[Any, ...]:
        where = number % array.sets if index == "modulo" else index_value(index, number)
        return where, 0, kind, (number, space)

    own = [key("PDE", page >> 9)] if leaf == 1 else []
    return [*own, key("table", table), key("host of table", table >> 9), key("host of frame", frame >> 9)]


def translate(
    cpu: Cpu, machine: Machine, in_l1: Any, in_stlb: Any, beside: list[Any], homes: dict[Any, Any]
) -> str:
    """One access through both TLB levels; returns "l1", "stlb" or "walk"."""
    if in_l1 is not None and in_l1[0].hit(in_l1[1]):
        return "l1"
    hit = in_stlb is not None and in_stlb[0].hit(in_stlb[1])
    if not hit:
        for array, key in beside:
            array.put(key)
    if machine.inclusion == "exclusive" and in_l1 is not None and in_stlb is not None:
        l1, key = in_l1
        if hit:
            in_stlb[0].remove(in_stlb[1])
        gone = l1.put(key)
        homes[id(l1), key] = in_stlb
        if gone is not None:
            home, home_key = homes[id(l1), gone]
            home.put(home_key)
        return "stlb" if hit else "walk"
    if in_stlb is not None and not hit:
        gone = in_stlb[0].put(in_stlb[1])
        if gone is not None and machine.inclusion == "inclusive":
            for array in cpu.l1:
                array.drop(lambda key: within(key, gone))
    if in_l1 is not None:
        in_l1[0].put(in_l1[1])
    return "stlb" if hit else "walk"


def simulate(
    machine: Machine,
    pages: Sequence[int],
    mapping: Mapping,
    page_index: Sequence[int],
    kinds: Sequence[int],
    *,
    cpus: Sequence[int] | None = None,
    spaces: Sequence[int] | None = None,
    events: Any = None,
    offsets: Sequence[int] | None = None,
    cache_mode: str = "walks-only",
    entry_address: Callable[[int, int, int], int] | None = None,
    host_address: Callable[[int, int], int] | None = None,
) -> dict[str, Any]:
    """Replay a trace access by access.

    Parameters
    ----------
    machine : Machine
    pages : sequence of int
        The trace's distinct pages of 4 KiB, where events speak of them; `mapping` says where each lies.
    mapping : Mapping
    page_index, kinds, cpus, offsets : sequences, one item for each access
        Index into `pages`; LOAD, STORE, FETCH or SKIP; CPU (0); byte in the 4-KiB page (0).
    spaces : sequence of int, one item for each distinct page
    events : sequence of EVENT records, sorted by position
    cache_mode : str
        "walks-only" or "full".
    entry_address : callable
        (level, page number, space) -> physical (in a guest: guest-physical) address of a table entry.
    host_address : callable
        (level, guest-physical address) -> physical address of a host table entry.
    """
    number_of_cpus = max(cpus, default=0) + 1 if cpus is not None else 1
    all_cpus = [Cpu(machine) for _ in range(number_of_cpus)]
    caches = Caches(machine, number_of_cpus)
    walks = Walks(machine, mapping, caches, entry_address, host_address)
    base = mapping.geometry.base_shift
    where = [
        (
            int(mapping.page[i]),
            int(mapping.leaf_shift[i]),
            int(mapping.contiguous_shift[i]),
            int(mapping.frame[i]),
        )
        for i in range(len(pages))
    ]
    pending = [
        tuple(int(event[name]) for name in ("position", "kind", "cpu", "space", "start", "end"))
        for event in (events if events is not None else [])
    ]
    has_itlb = any(array.level == 1 and array.serves == ["fetch"] for array in machine.tlb)
    counts: Counter[str] = Counter()
    cycles: Counter[str] = Counter()
    l1_misses: list[int] = []
    stlb_misses: list[int] = []
    homes: dict[Any, Any] = {}  # exclusive: where in the STLB an L1 entry came from and returns to
    moved: dict[Any, int] = {}  # TLB entry -> bytes by which the mapping moved its pages
    places: dict[Any, Any] = {}  # (CPU, page, kind) -> its places in L1 and STLB, which never change

    for position, (index, kind) in enumerate(zip(page_index, kinds, strict=True)):
        while pending and pending[0][0] <= position:
            happen(pending.pop(0), all_cpus, machine, base, moved, counts, cycles)
        if kind == SKIP:
            continue
        number = cpus[position] if cpus is not None else 0
        cpu = all_cpus[number]
        space = int(spaces[index]) if spaces is not None else 0
        page, leaf_shift, contiguous, frame = where[index]
        if (number, index, kind) not in places:
            leaf = leaf_shift
            if machine.guest is not None:  # the host's leaves bound the guest's, and what is contiguous
                host_leaf = shift_of(machine.guest.host_leaf)
                leaf, contiguous = min(leaf, host_leaf), min(contiguous, host_leaf)
            facts = (kind, page, leaf, contiguous, base, space)
            both = place(machine, cpu.l1, *facts), place(machine, cpu.stlb, *facts)
            beside: list[Any] = []
            of_loads = place(machine, cpu.stlb, LOAD, *facts[1:])
            if of_loads is not None and machine.guest is not None and machine.guest.walks_in_stlb:
                level = next(each.level for each in mapping.geometry.leaves if each.shift == leaf_shift)
                table = walks.entry_address(level, page, space) >> 12
                array = of_loads[0]
                beside = [(array, key) for key in remembered(array, page, level, table, frame, space)]
            places[number, index, kind] = *both, beside
            moved |= {found[1][1:]: page - int(pages[index]) << 12 for found in both if found is not None}
        in_l1, in_stlb, beside = places[number, index, kind]
        counts["accesses"] += 1
        found = translate(cpu, machine, in_l1, in_stlb, beside, homes)
        if found != "l1":
            l1_misses.append(position)
            counts["l1_itlb_misses" if kind == FETCH and has_itlb else "l1_dtlb_misses"] += 1
        if found == "stlb":
            counts["stlb_hits"] += 1
            cycles["stlb_hit"] += in_stlb[0].description.hit_cycles
        if found == "walk":
            stlb_misses.append(position)
            counts["stlb_misses"] += 1
            walks.walk(number, cpu, page, leaf_shift, frame, space)
        if cache_mode == "full" and kind != FETCH:
            offset = offsets[position] if offsets is not None else 0
            caches.read(number, frame << 12 | offset, "data")
    for event in pending:
        happen(event, all_cpus, machine, base, moved, counts, cycles)

    for references in walks.done:
        counts["walks"] += 1
        counts["walk_refs"] += len(references)
        counts[f"walks_by_refs_{len(references)}"] += 1
    for name, hits in walks.psc_hits.items():
        counts[f"psc_hits_{name}"] += hits
    cycles["walk"] = sum(walks.cycles)
    return {
        "counts": dict(counts),
        "cycles": dict(cycles),
        "l1_miss_positions": l1_misses,
        "stlb_miss_positions": stlb_misses,
        "walks": walks.done,
        "cycles_of_walks": walks.cycles,
        "caches": {name: dict(each) for name, each in caches.counts.items()},
        "walk_refs_in": dict(Counter(place for references in walks.done for _, place in references)),
        "walk_cycles_by_level": dict(walks.cycles_by_level),
    }
