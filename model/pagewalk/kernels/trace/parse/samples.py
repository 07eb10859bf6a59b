"""Text formats whose lines have many fields: perf script, trace-cmd report, CSV.

As in `trace.parse.lines`, a kernel returns how many accesses it wrote to `out`, and the position
of the first line that is none of its format (-1 if all are).
"""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import lean_inline, lean_jit
from pagewalk.kernels.lru.vector import lowest
from pagewalk.kernels.trace.parse.text import (
    COLON,
    DOT,
    FETCH,
    HEX,
    KERNEL,
    MINUS,
    NEWLINE,
    ONE,
    SPACE,
    STORE,
    TAB,
    Accesses,
    Text,
    before,
    decimal,
    find,
    hexadecimal,
    literal,
    next_line,
    put,
    size_bits,
    skip_blanks,
    skip_word,
    stands,
)
from pagewalk.kernels.trace.parse.vector import LANES, blanks, equals, hex_digits, hexadecimals

# ---- perf script, trace-cmd report ------------------------------------------------

OP_STORE, STORES, BAR = literal("|OP STORE"), literal("store"), literal(" |")
ADDRESS_IS, ADDR_IS, ERROR_IS = literal(" address=0x"), literal(" addr=0x"), literal(" error_code=0x")
FAULT_WRITE, FAULT_USER, FAULT_FETCH = 2, 4, 16
"""Bits of x86's page-fault error code (Linux arch/x86/include/asm/trap_pf.h)."""


@lean_inline
def _time(text: Text, line: int) -> int:
    """Where the first word such as ``1829.383079:`` begins in a line; -1 if none does."""
    at = line
    while True:
        ends = equals(text, at, NEWLINE)
        closing = equals(text, at + 1, SPACE) | equals(text, at + 1, NEWLINE)
        found = before(equals(text, at, COLON) & closing, ends)
        while found != 0:
            colon = at + lowest(found)
            dot = _digits_before(text, line, colon)
            start = _digits_before(text, line, dot - 1)
            whole = colon > dot and text[dot - 1] == DOT and start < dot - 1
            if whole and (start == line or text[start - 1] <= SPACE):
                return start
            found &= found - ONE
        if ends != 0:
            return -1
        at += LANES


@lean_inline
def _digits_before(text: Text, line: int, end: int) -> int:
    """Where the decimal digits begin that end at `end`."""
    at = end
    while at > line and 48 <= text[at - 1] <= 57:
        at -= 1
    return at


@lean_inline
def _cpu(text: Text, line: int, end: int) -> tuple[int, int]:
    """The number in the last word such as ``[001]`` of text[line:end], and where it begins; or -1, `end`."""
    cpu, place, at, behind = -1, end, line, ONE
    while at < end:
        blank = blanks(text, at)
        found = equals(text, at, 91) & (blank << ONE | behind)
        behind = blank >> np.uint64(LANES - 1)
        while found != 0:
            here = at + lowest(found)
            if here < end:
                number, closing = decimal(text, here + 1)
                if closing > 0 and text[closing] == 93:
                    cpu, place = number, here
            found &= found - ONE
        at += LANES
    return cpu, place


@lean_inline
def _process(text: Text, line: int, end: int) -> int:
    """The process id in the last word of text[line:end], blanks aside; -1 if there is none.

    It is ``123/125``, ``123`` or (trace-cmd) ``name-123``.
    """
    while end > line and text[end - 1] <= SPACE:
        end -= 1
    at = _digits_before(text, line, end)
    if not 0 < end - at <= 10:
        return -1
    if at > line and text[at - 1] == 47:
        end = at - 1
        at = _digits_before(text, line, end)
        if not 0 < end - at <= 10 or (at > line and text[at - 1] > SPACE):
            return -1
    elif at > line and text[at - 1] > SPACE and text[at - 1] != MINUS:
        return -1
    return decimal(text, at)[0]


@lean_inline
def _is_address(text: Text, at: int) -> int:
    """Where a word of up to 16 hexadecimal digits ends; -1 if it is none."""
    digits = hex_digits(text, at)
    after = text[at + digits]
    return at + digits if after <= SPACE and after != NEWLINE and 0 < digits <= 16 else -1


@lean_inline
def _is_number(text: Text, at: int) -> int:
    """Where a word of 4 to 16 hexadecimal digits, with a decimal one among them, ends; -1 if it is none."""
    digits = hex_digits(text, at)
    if not 4 <= digits <= 16 or text[at + digits] > SPACE:
        return -1
    for here in range(at, at + digits):
        if text[here] <= 57:
            return at + digits
    return -1


@lean_inline
def _names_a_store(text: Text, start: int, end: int) -> bool:
    """Whether "store" stands in text[start:end], the event's name with its colon."""
    for at in range(start, end, LANES):
        found = equals(text, at, STORES[0])
        while found != 0:
            here = at + lowest(found)
            if here < end and stands(text, here, STORES):
                return True
            found &= found - ONE
    return False


@lean_inline
def _rest(text: Text, at: int) -> tuple[bool, int, int]:
    """What follows an address: whether another number does, flags for the access, and where the line ends."""
    another, flags = False, 0
    while True:
        ends = equals(text, at, NEWLINE)
        found = before(blanks(text, at - 1) & (hexadecimals(text, at) | equals(text, at, BAR[1])), ends)
        while found != 0:
            here = at + lowest(found)
            if text[here] == BAR[1]:
                if stands(text, here, OP_STORE):
                    flags |= STORE
            else:
                end = _is_number(text, here)
                another = another or end > 0
                if end - here == 16 and HEX[text[here]] >= 8:
                    flags |= KERNEL
            found &= found - ONE
        if ends != 0:
            return another, flags, at + lowest(ends)
        at += LANES


@lean_jit
def perf(text: Text, end: int, out: Accesses) -> tuple[int, int]:
    """``git 27106 [001] 1748.94: 1 cpu/mem-loads/: ffff888104a0 5080144 |OP LOAD|... ffffffff81fe f+0x1``.

    Also tracepoints with a field address= or addr=. Lines with no data address, or with 0, are passed.
    """
    at, count = 0, 0
    while at < end:
        line = at
        time = -1 if text[at] == TAB or text[at] == 35 or text[at] == NEWLINE else _time(text, line)
        if time < 0:
            at = next_line(text, at)
            continue
        event = skip_blanks(text, skip_word(text, time))
        at = skip_word(text, event)
        if text[at - 1] != COLON:  # the period
            event = skip_blanks(text, at)
            at = skip_word(text, event)
        if at == event or text[at - 1] != COLON:
            at = next_line(text, at)
            continue
        address, flags, here = 0, 0, skip_blanks(text, at)
        after = _is_address(text, here)
        if after > 0 and not stands(text, after, BAR):
            another, flags, line_ends = _rest(text, after)
            if another:
                address, _ = hexadecimal(text, here)
                if _names_a_store(text, event, at):
                    flags |= STORE
            at = line_ends
        else:
            field = find(text, at, ADDRESS_IS)
            width = len(ADDRESS_IS)
            if field < 0:
                field, width = find(text, at, ADDR_IS), len(ADDR_IS)
            if field > 0:
                address, after = hexadecimal(text, field + width)
                if after < 0:
                    return count, line
                code_at = find(text, after, ERROR_IS)
                if code_at > 0:
                    code, after = hexadecimal(text, code_at + len(ERROR_IS))
                    if after < 0:
                        return count, line
                    flags = (STORE if code & FAULT_WRITE else 0) | (0 if code & FAULT_USER else KERNEL)
                    flags |= FETCH if code & FAULT_FETCH else 0
        if address != 0:
            cpu, place = _cpu(text, line, time)
            count = put(out, count, address, flags, cpu, _process(text, line, place))
        at = next_line(text, at)
    return count, -1


# ---- CSV -------------------------------------------------------------------------

IGNORED, ADDRESS, KIND, SIZE, CPU, PROCESS = range(6)
"""What a column holds."""


@lean_inline
def _kind(text: Text, at: int) -> int:
    """Flags for a word such as load, R, store, 1, ifetch, by its first letter; -1 for others."""
    letter = text[at] | 32
    if letter == 114 or letter == 108 or text[at] == 48:  # r l 0
        return 0
    if letter == 119 or letter == 115 or text[at] == 49:  # w s 1
        return STORE
    if letter == 105 or letter == 102 or text[at] == 50:  # i f 2
        return FETCH
    return -1


@lean_inline
def _gap(text: Text, at: int, separator: int) -> int:
    """Where what follows blanks, and the carriage return of a Windows line end, is."""
    while text[at] == SPACE or text[at] == 13 or (text[at] == TAB and separator != TAB):
        at += 1
    return at


@lean_inline
def _field(text: Text, at: int, separator: int, role: int) -> tuple[int, int]:
    """The value of a field (flags for a KIND), and where it ends; -1 if it has none."""
    if role in (IGNORED, KIND):
        value = 0 if role == IGNORED else _kind(text, at)
        while text[at] != separator and text[at] != NEWLINE:
            at += 1
        return value, at if value >= 0 else -1
    if text[at] == 48 and (text[at + 1] | 32) == 120:  # 0x
        return hexadecimal(text, at + 2)
    return decimal(text, at)


@lean_jit
def csv(text: Text, end: int, separator: int, roles: NDArray[np.int64], out: Accesses) -> tuple[int, int]:
    """Rows of fields with the given roles; numbers are 0x... or decimal. Empty lines and # are passed."""
    at, count = 0, 0
    while at < end:
        line = at
        at = _gap(text, at, separator)
        if text[at] == NEWLINE or text[at] == 35:
            at = next_line(text, at)
            continue
        address, flags, size, cpu, process = 0, 0, 0, -1, -1
        for i in range(len(roles)):
            value, at = _field(text, at, separator, roles[i])
            if at < 0:
                return count, line
            if roles[i] == ADDRESS:
                address = value
            elif roles[i] == KIND:
                flags = value
            elif roles[i] == SIZE:
                size = value
            elif roles[i] == CPU:
                cpu = value
            elif roles[i] == PROCESS:
                process = value
            at = _gap(text, at, separator)
            if text[at] == separator and i + 1 < len(roles):
                at = _gap(text, at + 1, separator)
            elif text[at] != NEWLINE and separator != SPACE:
                return count, line
        if text[at] != NEWLINE:
            return count, line
        at += 1
        count = put(out, count, address, flags | size_bits(size), cpu, process)
    return count, -1
