"""Text formats whose lines have many fields: perf script, trace-cmd report, CSV.

As in `trace.parse.lines`, a kernel returns how many accesses it wrote to `out`, and the position
of the first line that is none of its format (-1 if all are).
"""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.trace.parse.text import (
    COLON,
    DOT,
    FETCH,
    HEX,
    KERNEL,
    MINUS,
    NEWLINE,
    SPACE,
    STORE,
    TAB,
    Accesses,
    Text,
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

# ---- perf script, trace-cmd report ------------------------------------------------

OP_STORE, STORES, BAR = literal("|OP STORE"), literal("store"), literal(" |")
ADDRESS_IS, ADDR_IS, ERROR_IS = literal(" address=0x"), literal(" addr=0x"), literal(" error_code=0x")
FAULT_WRITE, FAULT_USER, FAULT_FETCH = 2, 4, 16
"""Bits of x86's page-fault error code (Linux arch/x86/include/asm/trap_pf.h)."""


@inline
def _is_time(text: Text, at: int) -> bool:
    """Whether a word such as ``1829.383079:`` begins at `at`."""
    start = at
    while 48 <= text[at] <= 57:
        at += 1
    if at == start or text[at] != DOT:
        return False
    start = at = at + 1
    while 48 <= text[at] <= 57:
        at += 1
    return at > start and text[at] == COLON and (text[at + 1] == SPACE or text[at + 1] == NEWLINE)


@inline
def _process_before_slash(text: Text, start: int, end: int) -> int:
    for i in range(start, end):
        if not 48 <= text[i] <= 57:
            return -1
    return decimal(text, start)[0] if 0 < end - start <= 10 else -1


@inline
def _process(text: Text, start: int, end: int) -> int:
    """The process id in a word ``123/125``, ``123`` or (trace-cmd) ``name-123``; -1 if there is none."""
    at = end
    while at > start and 48 <= text[at - 1] <= 57:
        at -= 1
    if at == end or end - at > 10 or (at > start and text[at - 1] != MINUS and text[at - 1] != 47):
        return -1
    if at > start and text[at - 1] == 47:
        return _process_before_slash(text, start, at - 1)
    return decimal(text, at)[0]


@inline
def _is_address(text: Text, at: int) -> int:
    """Where a word of up to 16 hexadecimal digits ends; -1 if it is none."""
    start = at
    while HEX[text[at]] >= 0:
        at += 1
    return at if text[at] <= SPACE and text[at] != NEWLINE and 0 < at - start <= 16 else -1


@inline
def _is_number(text: Text, at: int) -> int:
    """Where a word of 4 to 16 hexadecimal digits, with a decimal one among them, ends; -1 if it is none."""
    start, seen = at, False
    while HEX[text[at]] >= 0:
        seen = seen or HEX[text[at]] < 10
        at += 1
    return at if seen and text[at] <= SPACE and 4 <= at - start <= 16 else -1


@inline
def _names_a_store(text: Text, start: int, end: int) -> bool:
    """Whether "store" stands in text[start:end], the event's name."""
    for at in range(start, end - len(STORES)):  # noqa: SIM110 - numba compiles no generator expression
        if text[at] == STORES[0] and stands(text, at, STORES):
            return True
    return False


@inline
def _rest(text: Text, at: int) -> tuple[bool, int, int]:
    """What follows an address: whether another number does, flags for the access, and where the line ends."""
    another, flags = False, 0
    while text[at] != NEWLINE:
        at = skip_blanks(text, at)
        if text[at] == BAR[1]:
            if stands(text, at, OP_STORE):
                flags |= STORE
        elif HEX[text[at]] >= 0:
            end = _is_number(text, at)
            another = another or end > 0
            if end - at == 16 and HEX[text[at]] >= 8:
                flags |= KERNEL
        at = skip_word(text, at)
    return another, flags, at


@jit
def perf(text: Text, end: int, out: Accesses) -> tuple[int, int]:
    """``git 27106 [001] 1748.94: 1 cpu/mem-loads/: ffff888104a0 5080144 |OP LOAD|... ffffffff81fe f+0x1``.

    Also tracepoints with a field address= or addr=. Lines with no data address, or with 0, are passed.
    """
    at, count = 0, 0
    while at < end:
        line = at
        if text[at] == TAB or text[at] == 35 or text[at] == NEWLINE:
            at = next_line(text, at)
            continue
        cpu, process = -1, -1
        before, before_end = 0, 0
        at = skip_blanks(text, at)
        while text[at] != NEWLINE and not _is_time(text, at):
            word, at = at, skip_word(text, at)
            if text[word] == 91:  # [001]
                number, closing = decimal(text, word + 1)
                if closing > 0 and text[closing] == 93:
                    cpu = number
                    process = _process(text, before, before_end)
            before, before_end = word, at
            at = skip_blanks(text, at)
        if text[at] == NEWLINE:
            at += 1
            continue
        if cpu < 0:
            process = _process(text, before, before_end)
        event = skip_blanks(text, skip_word(text, at))
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
            another, flags, line_end = _rest(text, after)
            if another:
                address, _ = hexadecimal(text, here)
                if _names_a_store(text, event, at):
                    flags |= STORE
            at = line_end
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
            count = put(out, count, address, flags, cpu, process)
        at = next_line(text, at)
    return count, -1


# ---- CSV -------------------------------------------------------------------------

IGNORED, ADDRESS, KIND, SIZE, CPU, PROCESS = range(6)
"""What a column holds."""


@inline
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


@inline
def _gap(text: Text, at: int, separator: int) -> int:
    """Where what follows blanks, and the carriage return of a Windows line end, is."""
    while text[at] == SPACE or text[at] == 13 or (text[at] == TAB and separator != TAB):
        at += 1
    return at


@inline
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


@jit
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
