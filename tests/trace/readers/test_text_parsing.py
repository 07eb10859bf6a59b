"""Text is parsed 64 bytes at a time: vector steps beside their plain forms, perf beside a slow reading."""

import random
import re

import numpy as np
import pytest

from pagewalk.kernels._jit import lean_jit
from pagewalk.kernels.trace.parse import vector
from pagewalk.kernels.trace.parse.samples import perf
from pagewalk.kernels.trace.parse.text import NEWLINE, PADDING, Accesses, decimal, find, hexadecimal
from pagewalk.trace.trace import FETCH, KERNEL, STORE


@lean_jit
def masks(text, at, byte):
    return vector.equals(text, at, byte), vector.blanks(text, at), vector.hexadecimals(text, at)


@lean_jit
def number(text, at):
    digits = vector.hex_digits(text, at)
    return digits, vector.hex_value(text, at, digits) if 0 < digits <= 16 else 0


@lean_jit
def numbers(text, at):
    return hexadecimal(text, at), decimal(text, at)


@lean_jit
def found(text, at, word):
    return find(text, at, word)


def as_text(content):
    text = np.full(len(content) + PADDING, NEWLINE, np.uint8)
    text[: len(content)] = np.frombuffer(content, np.uint8)
    return text


def test_vector_steps_are_the_plain_ones():
    """All bytes, words of hexadecimal digits of any length, and whatever stands behind them."""
    chance = random.Random(1)
    texts = [bytes(range(256)), bytes(reversed(range(256)))]
    for _ in range(300):
        digits = "".join(chance.choices("0123456789abcdefABCDEF", k=chance.randrange(40)))
        texts.append(chance.randbytes(3) + digits.encode() + chance.randbytes(chance.randrange(50)))
    for content in texts:
        text = as_text(content)
        for at in range(0, len(content), 1 if len(content) < 60 else 17):
            byte = int(text[at + chance.randrange(9)])
            plain = vector.equals(text, at, byte), vector.blanks(text, at), vector.hexadecimals(text, at)
            assert tuple(map(int, masks(text, at, byte))) == tuple(map(int, plain))
            digits = vector.hex_digits(text, at)
            value = vector.hex_value(text, at, digits) if 0 < digits <= 16 else 0
            assert number(text, at) == (digits, value)


def test_numbers_are_those_that_python_reads():
    """Up to one digit more than 64 bits have; bits beyond 63 are an int64's sign."""
    chance = random.Random(2)
    for _ in range(2000):
        content = b"%x" % chance.getrandbits(chance.randrange(1, 70))
        content = chance.choice((content, b"%d" % chance.getrandbits(chance.randrange(1, 70))))
        content += chance.choice((b"", b"g", b" ", b"/", b":", b"o"))
        content = b"0" * chance.choice((0, 0, 3)) + content
        expected = []
        for base, letters, most in ((16, rb"[0-9a-f]*", 16), (10, rb"[0-9]*", 99)):
            digits = re.match(letters, content)[0]
            value = int(digits or b"0", base)
            fits = bool(digits) and len(digits) <= most and value < 1 << 64
            expected.append((value - (value >> 63 << 64), len(digits)) if fits else (0, -1))
        assert list(numbers(as_text(content), 0)) == expected


def test_words_are_found_in_their_line_only():
    chance = random.Random(3)
    word = np.frombuffer(b" A=0x", np.uint8).copy()
    for _ in range(500):
        parts = chance.choices([b" A=0x", b" A=", b" ", b"x" * 61, b"x", b"A", b"\n", b"= A"], k=20)
        content = b"".join(parts)
        assert found(as_text(content), 0, word) == content.split(b"\n")[0].find(b" A=0x")


def slow_perf(line):
    """(address, flags, cpu, process) of a line; None if it has no access. ValueError: a number is none."""
    if not line or line[:1] in b"\t#":
        return None
    words = [(each[0], each.start(), each.end()) for each in re.finditer(rb"[^\x00-\x20]+", line)]
    times = [
        i
        for i, (word, _, end) in enumerate(words)
        if re.fullmatch(rb"[0-9]+\.[0-9]+:", word) and line[end : end + 1] in (b" ", b"")
    ]
    if not times:
        return None
    cpus = [i for i in range(times[0]) if re.match(rb"\[[0-9]{1,19}\]", words[i][0])]
    cpu = int(re.match(rb"\[([0-9]+)\]", words[cpus[-1]][0])[1]) if cpus else -1
    who = words[i - 1][0] if (i := cpus[-1] if cpus else times[0]) else b""
    ids = re.fullmatch(rb"([0-9]{1,10})/[0-9]{1,10}", who) or re.search(rb"(?:^|-)([0-9]{1,10})$", who)
    process = int(ids[1]) if ids else -1
    names = [i for i in range(times[0] + 1, min(times[0] + 3, len(words))) if words[i][0][-1:] == b":"]
    event = names[0] if names else 0
    if not event:
        return None
    behind = words[event + 1 :]
    if behind and re.fullmatch(rb"[0-9a-fA-F]{1,16}", behind[0][0]):
        address, _, end = behind[0]
        if end < len(line) and not line[end:].startswith(b" |"):
            plain = [word for word, _, _ in behind[1:] if re.fullmatch(rb"[0-9a-fA-F]{4,16}", word)]
            if not any(re.search(rb"[0-9]", word) for word in plain) or int(address, 16) == 0:
                return None
            known = [word for word in plain if re.search(rb"[0-9]", word)]
            flags = KERNEL if any(len(word) == 16 and int(word, 16) >> 63 for word in known) else 0
            stores = any(line[start:].startswith(b"|OP STORE") for _, start, _ in behind[1:])
            flags |= STORE if stores or b"store" in words[event][0] else 0
            return int(address, 16), flags, cpu, process
    tail = line[words[event][2] :]
    named = re.search(rb" address=0x([0-9a-fA-F]*)", tail) or re.search(rb" addr=0x([0-9a-fA-F]*)", tail)
    if not named:
        return None
    code = re.search(rb" error_code=0x([0-9a-fA-F]*)", tail[named.end() :])
    if not all(1 <= len(each[1]) <= 16 for each in (named, code) if each):
        raise ValueError
    bits = int(code[1], 16) if code else 4
    flags = (STORE if bits & 2 else 0) | (0 if bits & 4 else KERNEL) | (FETCH if bits & 16 else 0)
    return (int(named[1], 16), flags, cpu, process) if int(named[1], 16) else None


PARTS = [
    [b"", b"  ", b"\t", b"#", b"git ", b"my prog:1 ", b"a-7 ", b"[12] ", b" 1.5: ", b"x" * 70 + b" "],
    [b"27106", b"27106/27107", b"kworker/0:1-33", b"12345678901/1", b"1/x", b"-", b"a/9", b":", b""],
    [b" ", b"  ", b"\t", b" " * 70],
    [b"[001] ", b"[255]", b"[] ", b"[1", b"x[3] ", b"d..2. ", b"[7] [9] ", b"", b""],
    [b"1748.943811: ", b"1.5:", b" 1.:  ", b".5: ", b"1.5:\t", b"1.5: 2.5: ", b"1.5: ", b"99.000001: "],
    [b"", b"", b"  1 ", b"10000 ", b"x "],
    [b"cpu/mem-loads,ldlat=30/P:", b"cpu/mem-stores/P:", b"page_fault_user:", b"store", b"store:", b"a:b"],
    [b" ", b"   ", b"\x01", b""],
    [b"7f00deadbeef", b"ffff888104a0f000", b"0", b"address=0x7f12", b"addr=0xffffffff81000000", b"addr=0x"],
    [
        b" ",
        b" |",
        b" |OP STORE|",
        b" 5080144 |OP STORE|LVL L1",
        b" 10668100842 |OP LOAD|LVL L1 hit",
        b" face",
    ],
    [
        b" ",
        b" ffffffff81fe0000",
        b" 7fad7c47425d",
        b" error_code=0x7",
        b" error_code=0x15",
        b" error_code=0x",
    ],
    [b"", b" f+0x1 (/usr/bin/git)", b" " + b"y" * 130, b" main+0x4 cafe", b" 00000000deadbeef"],
]
"""A line takes one of each, mostly."""


@pytest.mark.parametrize("seed", range(4))
def test_perf_is_read_as_slowly(seed):
    chance = random.Random(seed)
    out = Accesses(*(np.zeros(600, dtype) for dtype in (np.int64, np.uint8, np.int64, np.int64)))
    told = 0
    for _ in range(3000):
        line = b"".join(chance.choice(each[: chance.choice((1, 2, 99))]) for each in PARTS)
        if chance.random() < 0.3:
            at = chance.randrange(len(line) + 1)
            line = line[:at] + chance.choice([b" ", b":", b"/", b"f", b"\x00", b"store", b"]"]) + line[at:]
        text = as_text(line + b"\n")
        count, wrong = perf(text, len(line) + 1, out)
        try:
            expected = slow_perf(line)
        except ValueError:
            assert (count, wrong) == (0, 0), line
            continue
        assert wrong == -1
        read = [tuple(int(column[i]) for column in out) for i in range(count)]
        if expected is not None:
            told += 1
            expected = (expected[0] - (expected[0] >> 63 << 64), *expected[1:])
        assert read == ([] if expected is None else [expected]), line
    assert told > 300
