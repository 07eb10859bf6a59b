"""Vector steps that numba's own loops do not give: one LRU row moved to front, changes in a stream.

A row holds the entries of one set in recency order, most recent first. Hit and miss take the same
instructions: every lane up to the hit (all lanes, on a miss) takes its left neighbour, lane 0 the entry.
The functions run as they read when called from plain Python (or with ``NUMBA_DISABLE_JIT=1``); compiled
callers get LLVM vector code in their place, so each processor its own registers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

WIDTHS = (4, 8, 16, 32, 64, 128)
"""Lanes that a row can have."""

RUN = 64
"""Neighbours that `changes` compares at once."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def front(lanes: Any, first: Any, entry: Any, width: int) -> int:
    """Move `entry` to the front of the row ``lanes[first:first + width]``; a miss pushes the last lane out.

    Returns the lane in which the entry was; on a miss 64, or 128 in a row of 128. `width` is a constant of
    `WIDTHS`, `first` a multiple of it, `lanes` aligned to 64 bytes, `entry` >= 0; empty lanes are negative.
    """
    row = [int(lane) for lane in lanes[first : first + width]]
    at = row.index(entry) if entry in row else width
    lanes[first : first + width] = [entry, *row[:at], *row[at + 1 :]][:width]
    return at if at < width else max(width, 64)


def lane_of(lanes: Any, first: Any, entry: Any, width: int) -> int:
    """Lane of the row ``lanes[first:first + width]`` that holds `entry`, as of `front`; nothing moves."""
    row = [int(lane) for lane in lanes[first : first + width]]
    return row.index(entry) if entry in row else max(width, 64)


def changes(stream: Any, first: Any) -> Any:
    """Bit i is set where ``stream[first + i]`` differs from its left neighbour, for i < 64; `first` >= 1."""
    part = stream[first - 1 : first + RUN]
    return np.uint64(sum(1 << i for i in range(RUN) if part[i] != part[i + 1]))


def same_page(address: Any, first: Any) -> bool:
    """Whether ``address[first:first + RUN]``, of int64, lie in one 4 KiB page."""
    part = address[first : first + RUN] >> 12
    return bool((part == part[0]).all())


def lowest(mask: Any) -> int:
    """Position of the lowest bit that is set; `mask` is not 0."""
    return (int(mask) & -int(mask)).bit_length() - 1


def ones(mask: Any) -> int:
    """How many bits of a 64-bit mask are set."""
    return int(mask).bit_count()


def sum_behind(counts: Any, first: Any, lane: Any) -> int:
    """Sum of ``counts[first + lane + 1:first + RUN]``, `counts` of int32."""
    return int(counts[first + lane + 1 : first + RUN].sum())


def prefetch(array: Any, i: Any) -> None:
    """Ask for the cache line of ``array[i]``, which will be read soon."""


def not_inlined() -> None:
    """Stand in a function that must be compiled on its own, so that its loop has all registers to itself."""


def _vector_at(context: Any, builder: Any, array_type: Any, array: Any, first: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [first]), kind.as_pointer())


def fence(builder: Any, value: Any) -> Any:
    """Keep LLVM from seeing through a vector of 32 bits or a multiple; costs no instruction.

    It would otherwise turn "select between new lanes and the row just loaded, store" into a masked store,
    which is microcoded on Zen 2 and 3 and cannot be forwarded to the next load of the row.
    """
    words = value.type.count * value.type.element.width // 32
    kind = ir.VectorType(ir.FloatType(), words)
    name = f"llvm.arithmetic.fence.v{words}f32"
    through = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
    return builder.bitcast(builder.call(through, [builder.bitcast(value, kind)]), value.type)


def shuffle(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    """Lanes of two vectors, by their numbers: those of the second come after those of the first."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _kept_of_four(builder: Any, row: Any, pushed: Any, equal: Any) -> tuple[Any, Any]:
    """New row and hit mask of four lanes, without leaving the vector registers: shorter latency."""
    none = ir.Constant(row.type, [0] * 4)
    hit = fence(builder, builder.sext(equal, row.type))
    behind = [shuffle(builder, hit, none, ([4] * i + [0, 1, 2])[:4]) for i in (1, 2, 3)]
    keep = builder.or_(builder.or_(behind[0], behind[1]), behind[2])
    new = builder.or_(builder.and_(keep, row), builder.and_(builder.not_(keep), pushed))
    return new, builder.bitcast(builder.icmp_signed("<", hit, none), ir.IntType(4))


def _kept_by_mask(builder: Any, row: Any, pushed: Any, equal: Any) -> tuple[Any, Any]:
    """New row and hit mask: the lanes up to the lowest bit of the mask move, all lanes if there is none."""
    bits = ir.IntType(row.type.count)
    mask = builder.bitcast(equal, bits)
    moving = builder.xor(mask, builder.sub(mask, bits(1)))
    return builder.select(builder.bitcast(moving, equal.type), pushed, row), mask


def _lowest_lane(builder: Any, mask: Any) -> Any:
    """Position of the lowest bit of a mask; 64, or 128 of a mask of 128, where none is set."""
    if mask.type.width < 64:
        mask = builder.zext(mask, _I64)
    lane = builder.cttz(mask, ir.Constant(ir.IntType(1), 0))
    return builder.trunc(lane, _I64) if mask.type.width > 64 else lane


def _front_of(width: int) -> Any:
    """The vector form of `front` for rows of `width` lanes."""
    kind = ir.VectorType(_I32, width)
    align = min(4 * width, 64)

    @intrinsic
    def vector_front(typing: Any, lanes: Any, first: Any, entry: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _vector_at(context, builder, lanes, args[0], args[1], kind)
            row = fence(builder, builder.load(place, align=align))
            alone = builder.insert_element(ir.Constant(kind, ir.Undefined), args[2], _I32(0))
            entries = shuffle(builder, alone, alone, [0] * width)
            pushed = shuffle(builder, row, entries, [width, *range(width - 1)])
            equal = builder.icmp_signed("==", row, entries)
            kept = _kept_of_four if width == 4 else _kept_by_mask
            new, mask = kept(builder, row, pushed, equal)
            builder.store(new, place, align=align)
            return _lowest_lane(builder, mask)

        return types.int64(lanes, types.int64, types.int32), code

    return vector_front


def _lane_of_width(width: int) -> Any:
    """The vector form of `lane_of` for rows of `width` lanes."""
    kind = ir.VectorType(_I32, width)

    @intrinsic
    def vector_lane_of(typing: Any, lanes: Any, first: Any, entry: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _vector_at(context, builder, lanes, args[0], args[1], kind)
            alone = builder.insert_element(ir.Constant(kind, ir.Undefined), args[2], _I32(0))
            equal = builder.icmp_signed(
                "==",
                builder.load(place, align=min(4 * width, 64)),
                shuffle(builder, alone, alone, [0] * width),
            )
            return _lowest_lane(builder, builder.bitcast(equal, ir.IntType(width)))

        return types.int64(lanes, types.int64, types.int32), code

    return vector_lane_of


_FRONT = {width: _front_of(width) for width in WIDTHS}
_LANE_OF = {width: _lane_of_width(width) for width in WIDTHS}


@overload(front, prefer_literal=True)
def _front(lanes: Any, first: Any, entry: Any, width: Any) -> Callable[..., Any]:
    step = _FRONT[width.literal_value]

    def form(lanes: Any, first: Any, entry: Any, width: Any) -> Any:
        return step(lanes, first, entry)

    form.__qualname__ += str(width.literal_value)
    return form


@overload(lane_of, prefer_literal=True)
def _lane_of(lanes: Any, first: Any, entry: Any, width: Any) -> Callable[..., Any]:
    step = _LANE_OF[width.literal_value]

    def form(lanes: Any, first: Any, entry: Any, width: Any) -> Any:
        return step(lanes, first, entry)

    form.__qualname__ += str(width.literal_value)
    return form


@intrinsic
def _vector_changes(typing: Any, stream: Any, first: Any) -> Any:
    kind = ir.VectorType(_I32, RUN)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        here = builder.load(_vector_at(context, builder, stream, args[0], args[1], kind), align=4)
        before = builder.sub(args[1], _I64(1))
        left = builder.load(_vector_at(context, builder, stream, args[0], before, kind), align=4)
        return builder.bitcast(builder.icmp_unsigned("!=", here, left), _I64)

    return types.uint64(stream, types.int64), code


@overload(changes)
def _changes(stream: Any, first: Any) -> Callable[..., Any]:
    def form(stream: Any, first: Any) -> Any:
        return _vector_changes(stream, first)  # type: ignore[call-arg]

    return form


@intrinsic
def _in_one_page(typing: Any, address: Any, first: Any) -> Any:
    kind = ir.VectorType(_I64, RUN)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        here = builder.load(_vector_at(context, builder, address, args[0], args[1], kind), align=8)
        alone = shuffle(builder, here, here, [0] * RUN)
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I64, [kind]), f"llvm.vector.reduce.or.v{RUN}i64"
        )
        differing = builder.call(reduce, [builder.xor(here, alone)])
        return builder.icmp_unsigned("<", differing, _I64(1 << 12))

    return types.boolean(address, types.int64), code


@overload(same_page)
def _same_page(address: Any, first: Any) -> Callable[..., Any]:
    def form(address: Any, first: Any) -> Any:
        return _in_one_page(address, first)  # type: ignore[call-arg]

    return form


@intrinsic
def _trailing_zeros(typing: Any, mask: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


@overload(lowest)
def _lowest(mask: Any) -> Callable[..., Any]:
    def form(mask: Any) -> Any:
        return _trailing_zeros(mask)  # type: ignore[call-arg]

    return form


@intrinsic
def _count_ones(typing: Any, mask: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), code


@overload(ones)
def _ones(mask: Any) -> Callable[..., Any]:
    def form(mask: Any) -> Any:
        return _count_ones(mask)  # type: ignore[call-arg]

    return form


@intrinsic
def _vector_sum_behind(typing: Any, counts: Any, first: Any, lane: Any) -> Any:
    kind = ir.VectorType(_I32, RUN)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        all_lanes = builder.load(_vector_at(context, builder, counts, args[0], args[1], kind), align=4)
        alone = builder.insert_element(ir.Constant(kind, ir.Undefined), builder.trunc(args[2], _I32), _I32(0))
        behind = builder.icmp_signed(
            ">", ir.Constant(kind, list(range(RUN))), shuffle(builder, alone, alone, [0] * RUN)
        )
        kept = builder.and_(all_lanes, builder.sext(behind, kind))
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I32, [kind]), f"llvm.vector.reduce.add.v{RUN}i32"
        )
        return builder.sext(builder.call(add, [kept]), _I64)

    return types.int64(counts, types.int64, types.int64), code


@overload(sum_behind)
def _sum_behind(counts: Any, first: Any, lane: Any) -> Callable[..., Any]:
    def form(counts: Any, first: Any, lane: Any) -> Any:
        return _vector_sum_behind(counts, first, lane)  # type: ignore[call-arg]

    return form


@intrinsic
def _line_prefetch(typing: Any, array: Any, i: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = _vector_at(context, builder, array, args[0], args[1], ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [line.type, _I32, _I32, _I32])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [line, _I32(0), _I32(3), _I32(1)])  # to read, into every level, data
        return context.get_dummy_value()

    return types.none(array, types.int64), code


@overload(prefetch)
def _prefetch(array: Any, i: Any) -> Callable[..., Any]:
    def form(array: Any, i: Any) -> Any:
        return _line_prefetch(array, i)  # type: ignore[call-arg]

    return form


@intrinsic
def _mark_not_inlined(typing: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), code


@overload(not_inlined, inline="always")
def _not_inlined() -> Callable[[], Any]:
    def form() -> Any:
        return _mark_not_inlined()  # type: ignore[call-arg]

    return form
