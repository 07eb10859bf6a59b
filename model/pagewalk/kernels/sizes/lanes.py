"""One LRU set of many caches at once, a lane for each: the vector step behind `pagewalk.kernels.sizes.many`.

As in `pagewalk.kernels.lru.vector`, the function runs as it reads in plain Python; compiled callers get LLVM
vector code in its place.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

WAYS = 32
"""Lanes of one table of second levels: those of 1, 2, ... 32 ways."""

TABLES = 16
"""Tables of second levels in one pass. Ours to choose: what walk caches hold for them fits the processor's
first-level data cache."""

LANES = WAYS * TABLES
"""Caches side by side."""

STEP = 64
"""Lanes that one vector step takes."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def ask(looking: Any, table: Any, depth: Any) -> None:
    """Let the lanes of a table look whose ways do not reach to `depth`, and no others of the table.

    Parameters
    ----------
    looking : ndarray of uint8 or uint16, shape (LANES,)
    table : int
    depth : int
        0 to `WAYS`.
    """
    lanes = looking[table * WAYS : table * WAYS + WAYS]
    lanes[:] = 0
    lanes[:depth] = ~lanes[:depth]


def look_up(held: Any, row: Any, ways: Any, key: Any, looking: Any, passed: Any, count: Any) -> bool:
    """Look an entry up in the set of every lane that is `looking`; there it becomes most recent.

    Parameters
    ----------
    held : ndarray of uint8 or uint16, shape (rows, LANES)
        A row for each way, most recent first.
    row, ways : int
        First row of the set, and how many it has.
    key : uint8 or uint16
        The entry; never the largest number, which stands for none.
    looking : ndarray of the same dtype, shape (LANES,)
        All bits set, or 0 in lanes that take no part; lanes that find the entry are set to 0.
    passed : ndarray of the same dtype, shape (counters, LANES)
    count : int
        Row of `passed`: one is added where the entry was not found.

    Returns
    -------
    bool
        Whether any lane is looking still.
    """
    pushed = key
    for way in range(row, row + ways):
        old = held[way].copy()
        held[way][looking != 0] = pushed if way == row else pushed[looking != 0]
        looking[old == key] = 0
        pushed = old
    passed[count] += looking & 1
    return bool(looking.any())


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    """A vector with the value in all lanes."""
    alone = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, _I32(0)
    )
    return builder.shuffle_vector(alone, alone, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _any(builder: Any, lanes: Any) -> Any:
    """Whether any lane of a vector is not 0."""
    mask = builder.icmp_signed("!=", lanes, ir.Constant(lanes.type, [0] * lanes.type.count))
    bits = builder.bitcast(mask, ir.IntType(lanes.type.count))
    return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))


@intrinsic
def _vector_ask(typing: Any, looking: Any, table: Any, depth: Any) -> Any:
    lane = ir.IntType(looking.dtype.bitwidth)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(looking)(context, builder, args[0]).data
        ways = ir.Constant(ir.VectorType(lane, WAYS), list(range(WAYS)))
        behind = builder.icmp_unsigned("<", ways, _splat(builder, builder.trunc(args[2], lane), WAYS))
        place = builder.gep(data, [builder.mul(args[1], _I64(WAYS))])
        mask = builder.sext(behind, ways.type)
        builder.store(mask, builder.bitcast(place, ways.type.as_pointer()), align=lane.width // 8)
        return context.get_dummy_value()

    return types.none(looking, types.int64, types.int64), code


@overload(ask)
def _ask(looking: Any, table: Any, depth: Any) -> Callable[..., Any]:
    def form(looking: Any, table: Any, depth: Any) -> Any:
        return _vector_ask(looking, table, depth)  # type: ignore[call-arg]

    return form


@intrinsic
def _vector_look_up(
    typing: Any, held: Any, row: Any, ways: Any, key: Any, looking: Any, passed: Any, count: Any
) -> Any:
    lane = ir.IntType(held.dtype.bitwidth)
    kind = ir.VectorType(lane, STEP)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = [
            context.make_array(of)(context, builder, array).data
            for of, array in ((held, args[0]), (looking, args[4]), (passed, args[5]))
        ]
        keys = _splat(builder, args[3], STEP)
        none = ir.Constant(kind, [0] * STEP)
        pushed, left, still = (cgutils.alloca_once(builder, kind) for _ in range(3))
        builder.store(none, still)

        def at(array: Any, first: Any) -> Any:
            return builder.bitcast(builder.gep(array, [first]), kind.as_pointer())

        align = lane.width // 8
        with cgutils.for_range(builder, _I64(LANES // STEP)) as blocks:
            first = builder.mul(blocks.index, _I64(STEP))
            here = at(data[1], first)
            builder.store(keys, pushed)
            builder.store(builder.load(here, align=align), left)
            start = builder.add(first, builder.mul(args[1], _I64(LANES)))
            with cgutils.for_range(builder, args[2]) as each:
                with builder.if_then(builder.not_(_any(builder, builder.load(left)))):
                    each.do_break()
                place = at(data[0], builder.add(start, builder.mul(each.index, _I64(LANES))))
                old, looks = builder.load(place, align=align), builder.load(left)
                # not a select, of which LLVM makes a masked store, which cannot be forwarded to a load
                moved = builder.and_(builder.load(pushed), looks)
                stays = builder.and_(old, builder.not_(looks))
                builder.store(builder.or_(moved, stays), place, align=align)
                builder.store(old, pushed)
                found = builder.icmp_signed("==", old, keys)
                builder.store(builder.select(found, none, looks), left)
            looks = builder.load(left)
            builder.store(looks, here, align=align)
            counter = at(data[2], builder.add(first, builder.mul(args[6], _I64(LANES))))
            builder.store(builder.sub(builder.load(counter, align=align), looks), counter, align=align)
            builder.store(builder.or_(builder.load(still), looks), still)
        return _any(builder, builder.load(still))

    return types.boolean(held, types.int64, types.int64, held.dtype, looking, passed, types.int64), code


@overload(look_up)
def _look_up(
    held: Any, row: Any, ways: Any, key: Any, looking: Any, passed: Any, count: Any
) -> Callable[..., Any]:
    def form(held: Any, row: Any, ways: Any, key: Any, looking: Any, passed: Any, count: Any) -> Any:
        return _vector_look_up(held, row, ways, key, looking, passed, count)  # type: ignore[call-arg]

    return form
