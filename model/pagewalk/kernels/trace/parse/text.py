"""Numbers and words in text, read byte by byte.

A text is whole lines, and at least `PADDING` line ends after them: a look ahead of a few bytes, and every
loop that stops at a line end, stay inside.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import lean_inline
from pagewalk.kernels.lru.vector import lowest
from pagewalk.kernels.trace.parse.vector import LANES, equals, hex_digits, hex_value

PADDING = 2 * LANES
"""Line ends that follow the text."""

STORE, KERNEL, FETCH = 0x08, 0x10, 0x20
"""As in pagewalk.trace.trace."""

NEWLINE, SPACE, TAB, COLON, DOT, MINUS = 10, 32, 9, 58, 46, 45

ONE = np.uint64(1)
"""Of positions that are known not to be negative: numba then looks for no place counted from the end."""

HEX = np.full(256, -1, np.int64)
"""Value of a hexadecimal digit; -1 for other bytes."""
HEX[48:58] = np.arange(10)
HEX[65:71] = HEX[97:103] = np.arange(10, 16)

Text = NDArray[np.uint8]


class Accesses(NamedTuple):
    """What kernels write; each array has room for an access in every 2 bytes of text."""

    address: NDArray[np.int64]
    flags: NDArray[np.uint8]
    cpu: NDArray[np.int64]
    """-1 where the line does not say."""
    process: NDArray[np.int64]
    """Process id; -1 where the line does not say."""


@lean_inline
def hexadecimal(text: Text, at: int) -> tuple[int, int]:
    """The bits of a hexadecimal number, and where it ends; (0, -1) if there is none, or of over 16 digits."""
    digits = hex_digits(text, at)
    if digits == 0 or digits > 16:
        return 0, -1
    return hex_value(text, at, digits), at + digits


@lean_inline
def decimal(text: Text, at: int) -> tuple[int, int]:
    """The bits of a decimal number below 2**64, and where it ends; (0, -1) if there is none."""
    value, start = 0, at
    while 48 <= text[at] <= 57 and at - start < 18:
        value = value * 10 + HEX[text[at]]
        at += 1
    if not 48 <= text[at] <= 57:
        return value, at if at > start else -1
    high, low = value >> 32, value & 0xFFFFFFFF
    while 48 <= text[at] <= 57 and high < 1 << 32:
        low = low * 10 + HEX[text[at]]
        high = high * 10 + (low >> 32)
        low &= 0xFFFFFFFF
        at += 1
    if high >= 1 << 32:
        return 0, -1
    return ((high ^ 0x80000000) - 0x80000000) << 32 | low, at


@lean_inline
def stands(text: Text, at: int, word: Text) -> bool:
    """Whether `word` stands at `at`; it contains no line end."""
    for i in range(len(word)):  # noqa: SIM110 - numba compiles no generator expression
        if text[at + i] != word[i]:
            return False
    return True


@lean_inline
def before(mask: Any, ends: Any) -> Any:
    """The bits of a mask below the lowest bit of `ends`; all of them where that has none."""
    return mask & (ends - ONE) & ~ends if ends != 0 else mask


@lean_inline
def find(text: Text, at: int, word: Text) -> int:
    """Where `word`, of two bytes or more, next stands in the line; -1 if it does not."""
    while True:
        ends = equals(text, at, NEWLINE)
        found = before(equals(text, at, word[0]) & equals(text, at + 1, word[1]), ends)
        while found != 0:
            here = at + lowest(found)
            if stands(text, here, word):
                return here
            found &= found - ONE
        if ends != 0:
            return -1
        at += LANES


@lean_inline
def skip_blanks(text: Text, at: int) -> int:
    """Where the next byte that is no blank is, or the line ends; control characters count as blanks."""
    here = np.uint64(at)
    while text[here] <= SPACE and text[here] != NEWLINE:
        here += ONE
    return int(np.int64(here))


@lean_inline
def skip_word(text: Text, at: int) -> int:
    """Where a run of bytes that are no blanks ends."""
    here = np.uint64(at)
    while text[here] > SPACE:
        here += ONE
    return int(np.int64(here))


@lean_inline
def line_end(text: Text, at: int) -> int:
    """Where the line ends."""
    found = equals(text, at, NEWLINE)
    while found == 0:
        at += LANES
        found = equals(text, at, NEWLINE)
    return at + lowest(found)


@lean_inline
def next_line(text: Text, at: int) -> int:
    """Where the next line begins."""
    return line_end(text, at) + 1


@lean_inline
def size_bits(size: int) -> int:
    """Flag bits for an access of `size` bytes: log2, rounded up, of at most 128."""
    bits = 0
    while bits < 7 and 1 << bits < size:
        bits += 1
    return bits


@lean_inline
def put(out: Accesses, count: int, address: int, flags: int, cpu: int, process: int) -> int:
    """Write one access; the new count."""
    out.address[count], out.flags[count], out.cpu[count], out.process[count] = address, flags, cpu, process
    return count + 1


def literal(word: str) -> Text:
    """A word to look for."""
    return np.frombuffer(word.encode(), np.uint8).copy()
