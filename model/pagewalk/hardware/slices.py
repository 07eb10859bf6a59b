"""Caches in slices: a hash of a line's address picks the slice, low bits of its number the set within.

The hash gives a number of 32 bits; the slice is that number times the slices, over 2**32. It is linear over
GF(2), as every published one is but for a table at its end: an aligned power of two of lines, one after the
other or at a stride that is a power of two, spreads as evenly as the slices allow.

* 2, 4 and 8 slices: the published functions of Intel's cores from Sandy Bridge to Broadwell (`FUNCTIONS`).
* Any other number: the published functions are tables of up to 16,384 numbers, one for each number of slices
  (McCalpin, Mapping Addresses to L3/CHA Slices in Intel Processors, TACC TR-2021-03). The remainder of the
  line's number in CRC-32 stands for them. Ours.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Cache

FUNCTIONS = (0x1B_5F57_5440, 0x2E_B5FA_A880, 0x3C_CCC9_3100)
"""Address bits whose parity is bit 0, 1 and 2 of the slice's number; 2 slices have the first, 4 the first two
(Maurice et al., Reverse Engineering Intel Last-Level Cache Complex Addressing Using Performance Counters,
RAID 2015, up to bit 37)."""

CRC32 = 0x04C1_1DB7
"""IEEE 802.3, without the highest bit."""

NUMBER_BITS = 32
LINE_BYTES = 8
"""Bytes of a line's number."""


def sets_of(cache: Cache) -> int:
    """Sets of a level."""
    return cache.size_bytes // (cache.ways * cache.line_bytes)


def slices_of(cache: Cache) -> int:
    """Slices of a level; 1 where it is in one piece.

    A slice has `slice_sets` sets or, where the level is no whole number of those, the most that divide both.
    """
    return sets_of(cache) // math.gcd(sets_of(cache), cache.slice_sets) if cache.slice_sets else 1


def hash_of_bytes(cache: Cache) -> NDArray[np.int64]:
    """Give what each byte of a line's number adds to its hash, by exclusive or.

    Returns
    -------
    ndarray of int64, shape (8, 256)
        For each byte, the lowest first, and each value of it.
    """
    slices, shift = slices_of(cache), cache.line_bytes.bit_length() - 1
    bits = slices.bit_length() - 1
    published = slices == 1 << bits and bits <= len(FUNCTIONS)
    of_bit, power = np.zeros(8 * LINE_BYTES, np.int64), CRC32
    for bit in range(len(of_bit)):
        if published:
            parity = sum((mask >> bit + shift & 1) << number for number, mask in enumerate(FUNCTIONS[:bits]))
            of_bit[bit] = parity << NUMBER_BITS - bits
        else:
            of_bit[bit] = power
            power = power << 1 ^ (CRC32 | 1 << NUMBER_BITS if power >> NUMBER_BITS - 1 else 0)
    value = np.arange(256)
    table = np.zeros((LINE_BYTES, 256), np.int64)
    for bit, adds in enumerate(of_bit):
        table[bit // 8] ^= np.where(value >> bit % 8 & 1, adds, 0)
    return table


def set_of(cache: Cache, line: NDArray[np.int64]) -> NDArray[np.int64]:
    """Set of each line in a level, the sets of a slice one after the other.

    Parameters
    ----------
    cache : Cache
    line : ndarray of int64
        Physical address over the bytes of a line; not negative.

    Returns
    -------
    ndarray of int64, of the same shape
    """
    slices = slices_of(cache)
    sets = sets_of(cache) // slices
    if slices == 1:
        return line % sets
    number = np.zeros_like(line)
    for place, table in enumerate(hash_of_bytes(cache)):
        number ^= table[line >> 8 * place & 255]
    return (number * slices >> NUMBER_BITS) * sets + line % sets
