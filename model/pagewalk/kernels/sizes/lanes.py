"""One LRU set of many caches at once, a lane for each: the vector step behind `pagewalk.kernels.sizes.many`.

As in `pagewalk.kernels.lru.vector`, the function runs as it reads in plain Python; compiled callers get LLVM
vector code in its place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
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


def ask(looking: Any, depth: Any, miss: Any) -> bool:
    """Let those lanes look whose ways do not reach to the depth in their table, and no others.

    Parameters
    ----------
    looking : ndarray of uint8 or uint16, shape (LANES,)
    depth : ndarray of uint8, shape (misses, TABLES)
        0 to `WAYS`.
    miss : int
        Row of `depth`.

    Returns
    -------
    bool
        Whether any lane is looking.
    """
    tables = looking.reshape(TABLES, WAYS)
    tables[:] = 0
    tables[np.arange(WAYS) < depth[miss, :, None]] = np.iinfo(looking.dtype).max
    return bool(depth[miss].any())


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
def _vector_ask(typing: Any, looking: Any, depth: Any, miss: Any) -> Any:
    lane = ir.IntType(looking.dtype.bitwidth)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(looking)(context, builder, args[0]).data
        rows = context.make_array(depth)(context, builder, args[1]).data
        kind = ir.VectorType(ir.IntType(8), TABLES)
        row = builder.gep(rows, [builder.mul(args[2], _I64(TABLES))])
        depths = builder.load(builder.bitcast(row, kind.as_pointer()), align=1)
        at = builder.bitcast(data, ir.VectorType(lane, STEP).as_pointer())
        ways = ir.Constant(ir.VectorType(ir.IntType(8), STEP), list(range(WAYS)) * (STEP // WAYS))
        for step in range(LANES // STEP):
            of_table = [step * STEP // WAYS + i // WAYS for i in range(STEP)]
            pick = ir.Constant(ir.VectorType(_I32, STEP), of_table)
            behind = builder.icmp_unsigned("<", ways, builder.shuffle_vector(depths, depths, pick))
            mask = builder.sext(behind, ir.VectorType(lane, STEP))
            builder.store(mask, builder.gep(at, [_I64(step)]), align=lane.width // 8)
        return _any(builder, depths)

    return types.boolean(looking, depth, types.int64), code


@overload(ask, inline="always")
def _ask(looking: Any, depth: Any, miss: Any) -> Callable[..., Any]:
    def form(looking: Any, depth: Any, miss: Any) -> Any:
        return _vector_ask(looking, depth, miss)  # type: ignore[call-arg]

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
            looks = builder.load(here, align=align)
            start = builder.add(first, builder.mul(args[1], _I64(LANES)))
            front = builder.load(at(data[0], start), align=align)
            behind = builder.select(builder.icmp_signed("==", front, keys), none, looks)
            # as if all were in front; `behind` itself would become a masked store, too
            builder.store(none, here, align=align)
            with builder.if_then(_any(builder, behind)):
                builder.store(keys, pushed)
                builder.store(looks, left)
                with cgutils.for_range(builder, args[2]) as each:
                    place = at(data[0], builder.add(start, builder.mul(each.index, _I64(LANES))))
                    old, looks = builder.load(place, align=align), builder.load(left)
                    # no select, of which LLVM makes a masked store, which cannot be forwarded to a load
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


@overload(look_up, inline="always")
def _look_up(
    held: Any, row: Any, ways: Any, key: Any, looking: Any, passed: Any, count: Any
) -> Callable[..., Any]:
    def form(held: Any, row: Any, ways: Any, key: Any, looking: Any, passed: Any, count: Any) -> Any:
        return _vector_look_up(held, row, ways, key, looking, passed, count)  # type: ignore[call-arg]

    return form
