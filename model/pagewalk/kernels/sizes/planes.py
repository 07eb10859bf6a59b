"""LRU sets of 512 walk caches at once, bit by bit: the vector steps behind `pagewalk.kernels.sizes.walks`.

A lane for each second level. A key of a few bits is spread over as many *planes*, vectors of 512 bits, one
for each lane, so that one step compares or moves that bit of all lanes.

As in `pagewalk.kernels.lru.vector`, functions run as they read in plain Python; compiled callers get LLVM
vector code in their place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from pagewalk.kernels.lru.vector import shuffle

WORDS = 16
"""Words of a plane."""

WORD = 32
"""Bits of a word: lanes of one table, or of several."""

STEP = 16
"""Misses that `spread` and `add_up` take at once."""

COUNTER = 16
"""Planes of a counter: it counts to 65,535."""

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_PLANE = ir.VectorType(_I32, WORDS)


def spread(missed: Any, table: Any, first: Any, shift: Any, looking: Any, at: Any) -> None:
    """Set the lanes that look for walk-cache entries: those in which misses of the first level miss, too.

    Parameters
    ----------
    missed : ndarray of uint8, shape (tables, misses)
        How many lanes of each table are set: the lowest.
    table, first : int
        The first of `WORDS` tables, and of `STEP` misses.
    shift : int
        The lowest bit of a word that is the tables'. Where it is 0, planes are made anew.
    looking : ndarray of uint32, shape (planes, WORDS)
    at : int
        The first of the planes.
    """
    some = missed[table : table + WORDS, first : first + STEP].astype(np.uint64)
    lanes = ((np.uint64(1) << some) - np.uint64(1)) << np.uint64(shift)
    if shift == 0:
        looking[at : at + STEP] = 0
    looking[at : at + STEP] |= lanes.T.astype(np.uint32)


def look_up(held: Any, row: Any, ways: Any, key: Any, path: Any, looking: Any, at: Any, bits: Any) -> None:
    """Look a key up in one set of the caches of all lanes that are looking; there it becomes most recent.

    Parameters
    ----------
    held : ndarray of uint32, shape (planes, WORDS)
        For each way of each set, most recent first, a plane for each bit of its key.
    row, ways : int
        First plane of the set, and its ways.
    key : ndarray of uint32, shape (paths, len(bits))
        Keys bit by bit: 0, or all ones where the bit is set.
    path : int
        The key that is looked up.
    looking : ndarray of uint32, shape (planes, WORDS)
    at : int
        The plane of the lanes that look; those that find the key are taken out.
    bits : tuple
        As many elements as a key has bits: so the compiler knows their number.
    """
    left = looking[at].copy()
    pushed = [np.full(WORDS, key[path, bit]) for bit in range(len(bits))]
    for way in range(ways):
        differs = np.zeros(WORDS, np.uint32)
        moving = left.copy()
        for bit in range(len(bits)):
            plane = held[row + way * len(bits) + bit]
            old = plane.copy()
            plane[:] = (moving & pushed[bit]) | (~moving & old)
            differs |= old ^ key[path, bit]
            pushed[bit] = old
        left &= differs
    looking[at] = left


def add_up(looking: Any, chosen: Any, count: Any, counter: Any) -> None:
    """Count, for each lane, in how many planes it is set.

    Parameters
    ----------
    looking : ndarray of uint32, shape (planes, WORDS)
    chosen : ndarray of int32
        Which planes are counted.
    count : int
        How many of `chosen`; a multiple of `STEP`.
    counter : ndarray of uint32, shape (COUNTER, WORDS)
        A number for each lane, bit by bit from the lowest; added to.
    """
    for plane in looking[chosen[:count]]:
        carry = plane
        for bit in range(COUNTER):
            counter[bit], carry = counter[bit] ^ carry, counter[bit] & carry


def _plane_at(context: Any, builder: Any, of: Any, array: Any, index: Any) -> Any:
    data = context.make_array(of)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [builder.mul(index, _I64(WORDS))]), _PLANE.as_pointer())


def _splat(builder: Any, word: Any) -> Any:
    alone = builder.insert_element(ir.Constant(_PLANE, ir.Undefined), word, _I32(0))
    return shuffle(builder, alone, alone, [0] * WORDS)


def _some(builder: Any, plane: Any) -> Any:
    """Whether any bit of a plane is set."""
    words = builder.icmp_unsigned("!=", plane, ir.Constant(_PLANE, [0] * WORDS))
    return builder.icmp_unsigned("!=", builder.bitcast(words, ir.IntType(WORDS)), ir.IntType(WORDS)(0))


@intrinsic
def _vector_spread(
    typing: Any, missed: Any, table: Any, first: Any, shift: Any, looking: Any, at: Any
) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(missed)(context, builder, args[0])
        width = builder.extract_value(array.shape, 1)
        kind = ir.VectorType(_I8, STEP)
        rows = []
        for i in range(WORDS):
            begin = builder.add(builder.mul(builder.add(args[1], _I64(i)), width), args[2])
            place = builder.bitcast(builder.gep(array.data, [begin]), kind.as_pointer())
            rows.append(builder.load(place, align=1))
        halves = [[half + i // 2 + STEP * (i % 2) for i in range(STEP)] for half in (0, STEP // 2)]
        for _ in range(
            4
        ):  # each round turns the eight bits of (row, column) by one: four change rows for columns
            pairs = [(rows[i], rows[i + STEP // 2]) for i in range(STEP // 2)]
            rows = [shuffle(builder, *pair, half) for pair in pairs for half in halves]
        one = ir.Constant(_PLANE, [1] * WORDS)
        low = builder.trunc(args[3], _I32)
        up = _splat(builder, low)
        others = _splat(builder, builder.sext(builder.icmp_signed("!=", low, _I32(0)), _I32))
        for i, row in enumerate(rows):
            count = builder.zext(row, _PLANE)
            half = builder.lshr(count, one)  # a shift by 32 bits, at once, is none that LLVM knows
            lanes = builder.sub(builder.shl(builder.shl(one, half), builder.sub(count, half)), one)
            place = _plane_at(context, builder, looking, args[4], builder.add(args[5], _I64(i)))
            kept = builder.and_(builder.load(place, align=64), others)
            builder.store(builder.or_(builder.shl(lanes, up), kept), place, align=64)
        return context.get_dummy_value()

    return types.none(missed, *[types.int64] * 3, looking, types.int64), code


@intrinsic
def _vector_look_up(
    typing: Any, held: Any, row: Any, ways: Any, key: Any, path: Any, looking: Any, at: Any, bits: Any
) -> Any:
    count = len(bits)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = context.make_array(key)(context, builder, args[3]).data
        here = _plane_at(context, builder, looking, args[5], args[6])
        keys = []
        for bit in range(count):
            word = builder.add(builder.mul(args[4], _I64(count)), _I64(bit))
            keys.append(_splat(builder, builder.load(builder.gep(words, [word]))))
        left = cgutils.alloca_once(builder, _PLANE)
        builder.store(builder.load(here, align=64), left)
        pushed = [cgutils.alloca_once(builder, _PLANE) for _ in keys]
        for bit, word in enumerate(keys):
            builder.store(word, pushed[bit])
        with cgutils.for_range(builder, args[2]) as each:
            moving = builder.load(left)
            stays = builder.not_(moving)
            differs = ir.Constant(_PLANE, [0] * WORDS)
            first = builder.add(args[1], builder.mul(each.index, _I64(count)))
            for bit, word in enumerate(keys):
                place = _plane_at(context, builder, held, args[0], builder.add(first, _I64(bit)))
                old = builder.load(place, align=64)
                moved = builder.and_(moving, builder.load(pushed[bit]))
                builder.store(builder.or_(moved, builder.and_(stays, old)), place, align=64)
                differs = builder.or_(differs, builder.xor(old, word))
                builder.store(old, pushed[bit])
            moving = builder.and_(moving, differs)
            builder.store(moving, left)
            with builder.if_then(builder.not_(_some(builder, moving))):
                each.do_break()
        builder.store(builder.load(left), here, align=64)
        return context.get_dummy_value()

    arguments = (held, types.int64, types.int64, key, types.int64, looking, types.int64, bits)
    return types.none(*arguments), code


@intrinsic
def _vector_add_up(typing: Any, looking: Any, chosen: Any, count: Any, counter: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = context.make_array(chosen)(context, builder, args[1]).data
        places = [_plane_at(context, builder, counter, args[3], _I64(bit)) for bit in range(COUNTER)]
        planes = [cgutils.alloca_once(builder, _PLANE) for _ in range(COUNTER)]
        for place, plane in zip(places, planes, strict=True):
            builder.store(builder.load(place, align=64), plane)

        def add(bit: int, one: Any, other: Any) -> Any:
            """Add two planes to a bit of the counter; what goes on to the next bit."""
            kept = builder.load(planes[bit])
            builder.store(builder.xor(builder.xor(one, other), kept), planes[bit])
            return builder.or_(builder.and_(one, other), builder.and_(builder.or_(one, other), kept))

        def tree(first: Any, deep: int) -> Any:
            """Add 2**deep planes; what goes on to the bit of that number."""
            if deep == 0:
                number = builder.sext(builder.load(builder.gep(numbers, [first])), _I64)
                return builder.load(_plane_at(context, builder, looking, args[0], number), align=64)
            second = builder.add(first, _I64(1 << (deep - 1)))
            return add(deep - 1, tree(first, deep - 1), tree(second, deep - 1))

        deep = STEP.bit_length() - 1
        with cgutils.for_range(builder, builder.sdiv(args[2], _I64(STEP))) as each:
            carry = tree(builder.mul(each.index, _I64(STEP)), deep)
            for plane in planes[deep:]:
                kept = builder.load(plane)
                builder.store(builder.xor(kept, carry), plane)
                carry = builder.and_(kept, carry)
        for place, plane in zip(places, planes, strict=True):
            builder.store(builder.load(plane), place, align=64)
        return context.get_dummy_value()

    return types.none(looking, chosen, types.int64, counter), code


@overload(spread, inline="always")
def _spread(missed: Any, table: Any, first: Any, shift: Any, looking: Any, at: Any) -> Callable[..., Any]:
    def form(missed: Any, table: Any, first: Any, shift: Any, looking: Any, at: Any) -> Any:
        return _vector_spread(missed, table, first, shift, looking, at)  # type: ignore[call-arg]

    return form


@overload(look_up, inline="always")
def _look_up(
    held: Any, row: Any, ways: Any, key: Any, path: Any, looking: Any, at: Any, bits: Any
) -> Callable[..., Any]:
    def form(held: Any, row: Any, ways: Any, key: Any, path: Any, looking: Any, at: Any, bits: Any) -> Any:
        return _vector_look_up(held, row, ways, key, path, looking, at, bits)  # type: ignore[call-arg]

    return form


@overload(add_up, inline="always")
def _add_up(looking: Any, chosen: Any, count: Any, counter: Any) -> Callable[..., Any]:
    def form(looking: Any, chosen: Any, count: Any, counter: Any) -> Any:
        return _vector_add_up(looking, chosen, count, counter)  # type: ignore[call-arg]

    return form
