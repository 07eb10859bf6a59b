"""Text formats of one access a line: lackey, pinatrace, DynamoRIO's view tool, gem5.

Each kernel reads a text of `end` bytes (see `trace.parse.text`) and writes to `out`. It returns
how many accesses it wrote, and the position of the first line that is none of its format (-1 if all are).
"""

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
from pagewalk.kernels.trace.parse.vector import LANES, equals

# ---- valgrind --tool=lackey --trace-mem=yes --------------------------------------


@lean_jit
def lackey(text: Text, end: int, out: Accesses) -> tuple[int, int]:
    """``I  04001090,3``, `` L``, `` S``, `` M 1ffefff,8``; an M is a load and a store.

    Valgrind's own lines, which begin with ==, -- or **, are passed.
    """
    at, count = 0, 0
    while at < end:
        line = at
        if (text[at] == 61 or text[at] == 45 or text[at] == 42) and text[at + 1] == text[at]:  # == -- **
            at = next_line(text, at)
            continue
        kind = text[at + 1]
        if text[at] == 73:  # I
            if kind != SPACE or text[at + 2] != SPACE:
                return count, line
        elif (
            text[at] != SPACE or text[at + 2] != SPACE or (kind != 76 and kind != 77 and kind != 83)
        ):  # L M S
            return count, line
        address, at = hexadecimal(text, at + 3)
        if at < 0 or text[at] != 44:
            return count, line
        size, at = decimal(text, at + 1)
        if at < 0 or text[at] != NEWLINE:
            return count, line
        bits = size_bits(size)
        if kind == SPACE:
            count = put(out, count, address, bits | FETCH, -1, -1)
        if kind == 76 or kind == 77:
            count = put(out, count, address, bits, -1, -1)
        if kind == 83 or kind == 77:
            count = put(out, count, address, bits | STORE, -1, -1)
        at += 1
    return count, -1


# ---- Pin's pinatrace -------------------------------------------------------------


@lean_jit
def pinatrace(text: Text, end: int, out: Accesses) -> tuple[int, int]:
    """``0x401000: R 0x7ffe0010``; lines that begin with # are passed."""
    at, count = 0, 0
    while at < end:
        line = at
        if text[at] == 35:
            at = next_line(text, at)
            continue
        if text[at] != 48 or text[at + 1] != 120:  # 0x
            return count, line
        code, at = hexadecimal(text, at + 2)
        if at < 0 or text[at] != COLON or text[at + 1] != SPACE or text[at + 3] != SPACE:
            return count, line
        kind = text[at + 2]
        if (kind != 82 and kind != 87) or text[at + 4] != 48 or text[at + 5] != 120:  # R W
            return count, line
        address, at = hexadecimal(text, at + 6)
        if at < 0 or text[at] != NEWLINE:
            return count, line
        flags = (STORE if kind == 87 else 0) | (KERNEL if code < 0 else 0)
        count = put(out, count, address, flags, -1, -1)
        at += 1
    return count, -1


# ---- DynamoRIO's view tool ---------------------------------------------------------

BYTES_AT, CORE = literal(" byte(s) @ 0x"), literal(" core ")
IFETCH, READ, WRITE, MARKER = literal("ifetch "), literal("read "), literal("write "), literal("<marker:")


@lean_jit
def view(text: Text, end: int, cpu: int, out: Accesses) -> tuple[int, int, int]:
    """``12 8: 3456 read 8 byte(s) @ 0x7f00 by PC 0x4000``; other lines are passed.

    ``<marker: tid 3456 on core 2>`` says which CPU made what follows; before the first it is `cpu`. The CPU
    at the end is returned for the next text.
    """
    at, count = 0, 0
    while at < end:
        line = at
        _, at = decimal(text, skip_blanks(text, at))
        if at > 0:
            _, at = decimal(text, skip_blanks(text, at))
        if at < 0 or text[at] != COLON:
            at = next_line(text, line)
            continue
        at = skip_blanks(text, skip_word(text, skip_blanks(text, at + 1)))
        if stands(text, at, MARKER):
            core = find(text, at, CORE)
            if core > 0:
                cpu, at = decimal(text, core + len(CORE))
                if at < 0:
                    return count, line, cpu
        flags = -1
        if stands(text, at, IFETCH):
            flags = FETCH
        elif stands(text, at, READ):
            flags = 0
        elif stands(text, at, WRITE):
            flags = STORE
        if flags >= 0:
            size, at = decimal(text, skip_blanks(text, skip_word(text, at)))
            if at < 0 or not stands(text, at, BYTES_AT):
                return count, line, cpu
            address, at = hexadecimal(text, at + len(BYTES_AT))
            if at < 0:
                return count, line, cpu
            count = put(out, count, address, flags | size_bits(size), cpu, -1)
        at = next_line(text, at)
    return count, -1, cpu


# ---- gem5 --debug-flags=Exec and MemTest ---------------------------------------------

BETWEEN, ADDRESS, INITIATING = literal(" : "), literal(" A=0x"), literal("nitiating ")
WRITE_AT = literal("write at addr ")
READ_AT = literal("read at addr ")


@lean_inline
def _gem5_cpu(text: Text, at: int) -> int:
    """The number at the end of an object's name, which ends at `at`; 0 if there is none."""
    cpu, scale = 0, 1
    while 48 <= text[at - 1] <= 57 and scale < 100000:
        at -= 1
        cpu += HEX[text[at]] * scale
        scale *= 10
    return cpu


@lean_inline
def _gem5_step(text: Text, at: int) -> int:
    """Number of the micro-operation whose line has `` : `` at `at`; -1 if it is a whole instruction."""
    if text[at - 3] != DOT:
        return -1
    tens, ones = int(HEX[text[at - 2]]), int(HEX[text[at - 1]])  # "12", " 2", or "2 "
    if tens < 0:
        return ones if text[at - 2] == SPACE else -1
    return tens if ones < 0 else tens * 10 + ones


@lean_inline
def _last_between(text: Text, first: int, end: int) -> int:
    """Where the last `` : `` of a line begins before `end`; it has one at `first`."""
    last = first
    for at in range(first, end, LANES):
        found = equals(text, at, SPACE) & equals(text, at + 1, COLON) & equals(text, at + 2, SPACE)
        while found != 0:
            if at + lowest(found) < end:
                last = at + lowest(found)
            found &= found - ONE
    return last


@lean_inline
def _gem5_stores(text: Text, start: int, at: int) -> bool:
    """Whether the class of operation, the last word of text[start:at], is one that stores."""
    word = at
    while word > start and text[word - 1] != SPACE:
        word -= 1
    for i in range(word, at - 4):  # ...Write, ...Store...
        if text[i] == 87 and text[i + 1] == 114 and text[i + 2] == 105:
            return True
        if text[i] == 83 and text[i + 1] == 116 and text[i + 2] == 111:
            return True
    return False


@lean_jit
def gem5(text: Text, end: int, whole: int, out: Accesses) -> tuple[int, int, int]:
    """``500: system.cpu0: T0 : 0x6224 @f+4. 2 : strx ... : MemWrite :  D=0x0 A=0x14f38`` and MemTest lines.

    Other lines are passed. A fetch is written for each instruction whose address the line gives; `whole` is
    that of the latest line of a whole instruction (0: none), whose first micro-operation is not fetched
    again. It is returned for the next text.
    """
    at, count = 0, 0
    while at < end:
        line = at
        _, at = decimal(text, skip_blanks(text, at))
        if at < 0 or text[at] != COLON or text[at + 1] != SPACE:
            at = next_line(text, line)
            continue
        name = at + 2
        at = skip_word(text, name)
        cpu = _gem5_cpu(text, at - 1 if text[at - 1] == COLON else at)
        at = skip_blanks(text, at)
        if stands(text, at + 1, INITIATING):
            store = find(text, at, WRITE_AT)
            load = find(text, at, READ_AT)
            if store >= 0 or load >= 0:
                start = store + len(WRITE_AT) if store >= 0 else load + len(READ_AT)
                address, at = hexadecimal(text, start + 2 if text[start + 1] == 120 else start)
                if at < 0:
                    return count, line, whole
                count = put(out, count, address, STORE if store >= 0 else 0, cpu, -1)
            at = next_line(text, at)
            continue
        while (
            text[at] == 65 or text[at] == 84 or text[at] == COLON or text[at] == 43 or text[at] == MINUS
        ) and (text[at + 1] == SPACE or 48 <= text[at + 1] <= 57):  # A0 T0 : + -
            at = skip_blanks(text, skip_word(text, at))
        code, known = 0, False
        if text[at] == 48 and text[at + 1] == 120:
            code, at = hexadecimal(text, at + 2)
            if at < 0:
                return count, line, whole
            known = True
        elif text[at] != 64:  # @
            at = next_line(text, at)
            continue
        colon = find(text, at, BETWEEN)
        if colon < 0:
            at = next_line(text, at)
            continue
        step = _gem5_step(text, colon)
        kernel = KERNEL if code < 0 else 0
        if known and (step < 0 or (step == 0 and whole != code)):
            count = put(out, count, code, FETCH | kernel, cpu, -1)
        whole = code if known and step < 0 else 0
        at = colon
        data = find(text, at, ADDRESS)
        if data >= 0:
            address, at = hexadecimal(text, data + len(ADDRESS))
            if at < 0:
                return count, line, whole
            stores = _gem5_stores(text, colon, _last_between(text, colon, data))
            count = put(out, count, address, (STORE if stores else 0) | kernel, cpu, -1)
        at = next_line(text, at)
    return count, -1, whole
