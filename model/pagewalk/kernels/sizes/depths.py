"""In which second levels, of any numbers of sets and ways, the misses of one first level miss, too.

Second levels that place units in the same sets differ in their ways alone; one table of LRU rows serves them:
where in its row a miss of the first level finds its unit is its depth, and those of no more ways miss
(Mattson 1970). A long lot of misses passes one table at a time, so that its rows stay in the second-level
data cache; a row keeps what a unit is called in its set, in as few bits as hold it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.rows import ONE
from pagewalk.kernels.lru.vector import fence, not_inlined, shuffle

WAYS = 32
"""Lanes of a row: the most ways of a second level."""

LOT = 1 << 14
"""Misses that pass one table after another. Ours to choose: what is noted of them takes 16 KiB a table."""

OWN = 1 << 16
"""Divisor of numbers that were made for one table."""

LARGEST = (1 << 31) - 1
"""Of all other numbers."""


class Table(NamedTuple):
    """Second levels that place units in the same sets.

    Units have numbers: divided by a divisor, the remainder is the unit's row, the quotient its key there.
    """

    rows: np.ndarray
    """uint8, uint16 or uint32 (sets, WAYS), aligned to 64 bytes: keys, most recent first; the largest
    number is none."""
    divisor: np.uint64
    times: np.uint64
    """To divide is to multiply by it and to shift by the next (Granlund and Montgomery 1994, theorem 4.2)."""
    shift: np.uint64
    missing: NDArray[np.uint8]
    """uint8 (WAYS + 1,): for each depth, how many of the second levels a unit misses in."""


def make_table(sets: int, divisor: int, largest: int, ways: Sequence[int]) -> Table:
    """Empty rows.

    Parameters
    ----------
    sets : int
    divisor : int
        `sets`, or `OWN`.
    largest : int
        Of the numbers of units; at most `LARGEST` unless the divisor is `OWN`.
    ways : sequence of int
        Of each second level, at most `WAYS`; rising.
    """
    kept = np.min_scalar_type(largest // divisor + 1)
    rows = aligned((sets, WAYS), kept, np.iinfo(kept).max)
    shift = 31 + (divisor - 1).bit_length()
    times = -(-(1 << shift) // divisor)
    if divisor == OWN:
        times, shift = 1, 16  # exact for any number, and the product stays one
    missing = np.searchsorted(ways, np.arange(WAYS + 1), side="right").astype(np.uint8)
    return Table(rows, np.uint64(divisor), np.uint64(times), np.uint64(shift), missing)


def aligned(shape: tuple[int, ...], dtype: Any, fill: int) -> np.ndarray:
    """An array that begins with a cache line of 64 bytes."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    memory = np.full(count + 64 // dtype.itemsize, fill, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[start : start + count].reshape(shape)


def front_of_row(rows: Any, row: Any, key: Any) -> int:
    """Move `key` to the front of a row; a miss pushes the last lane out.

    Parameters
    ----------
    rows : ndarray of uint8, uint16 or uint32, shape (rows, WAYS), aligned to 64 bytes
    row : uint64
    key : uint64
        Smaller than the largest number of the dtype.

    Returns
    -------
    int
        The lane in which the key was; `WAYS` on a miss.
    """
    kept = rows[row].tolist()
    at = kept.index(key) if key in kept else WAYS
    rows[row] = [key, *kept[:at], *kept[at + 1 :]][:WAYS]
    return at


@intrinsic
def _vector_front(typing: Any, rows: Any, row: Any, key: Any) -> Any:
    lane = ir.IntType(rows.dtype.bitwidth)
    kind = ir.VectorType(lane, WAYS)
    align = min(64, WAYS * lane.width // 8)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(rows)(context, builder, args[0]).data
        first = builder.mul(args[1], ir.IntType(64)(WAYS))
        place = builder.bitcast(builder.gep(data, [first]), kind.as_pointer())
        old = fence(builder, builder.load(place, align=align))
        alone = builder.insert_element(
            ir.Constant(kind, ir.Undefined), builder.trunc(args[2], lane), ir.IntType(32)(0)
        )
        keys = shuffle(builder, alone, alone, [0] * WAYS)
        pushed = shuffle(builder, old, keys, [WAYS, *range(WAYS - 1)])
        equal = builder.icmp_signed("==", old, keys)
        found = builder.bitcast(equal, ir.IntType(WAYS))
        moving = builder.xor(found, builder.sub(found, found.type(1)))
        builder.store(builder.select(builder.bitcast(moving, equal.type), pushed, old), place, align=align)
        return builder.zext(builder.cttz(found, ir.IntType(1)(0)), ir.IntType(64))

    return types.int64(rows, types.uint64, types.uint64), code


@overload(front_of_row)
def _front_of_row(rows: Any, row: Any, key: Any) -> Callable[..., Any]:
    def form(rows: Any, row: Any, key: Any) -> Any:
        return _vector_front(rows, row, key)  # type: ignore[call-arg]

    return form


@jit
def number_in_sets(set_of, sets):
    """Numbers of units for one table.

    Parameters
    ----------
    set_of : ndarray of int, shape (units,)
    sets : int

    Returns
    -------
    ndarray of int64, shape (units,)
        The set, and `OWN` times how many units before it are in the same.
    """
    filled, number = np.zeros(sets, np.int64), np.empty(len(set_of), np.int64)
    for unit in range(len(set_of)):
        own = set_of[unit]
        number[unit] = OWN * filled[own] + own
        filled[own] += 1
    return number


@jit
def write_numbers(number_of, unit, number):
    """Write the numbers of units, and -1 behind the last."""
    for j in range(len(unit)):
        number[j] = number_of[unit[j]]
    number[len(unit)] = -1


@inline
def _through(table, number, depth):
    not_inlined()
    rows, divisor, times, shift, _ = table
    j = np.uint64(0)
    here = number[j]
    while here >= 0:
        key = (np.uint64(here) * times) >> shift
        depth[j] = front_of_row(rows, np.uint64(here) - key * divisor, key)
        j += ONE
        here = number[j]


@jit
def misses(table, number, missed):
    """Send units through the rows of a table.

    Parameters
    ----------
    table : Table
    number : ndarray of int64, shape (units + 1,)
        The number of each unit; ended by -1.
    missed : ndarray of uint8, shape (at least units,)
        Gets in how many second levels of the table each unit misses: in those of fewest ways.
    """
    _through(table, number, missed)
    if table.missing[WAYS] < WAYS:
        for j in range(len(number) - 1):
            missed[j] = table.missing[missed[j]]
