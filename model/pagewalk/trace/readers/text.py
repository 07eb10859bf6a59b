"""Text formats: lackey, pinatrace, DynamoRIO's view tool, gem5, perf script, trace-cmd report."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.trace.encode import Raw, RawChunk, pieces
from pagewalk.trace.readers import packed
from pagewalk.trace.readers.pipe import is_pipe
from pagewalk.trace.readers.processes import Processes

LONGEST_LINE = 1 << 20
"""A longer line is refused; no tool here writes one."""

NEWLINE = 10

Parser = Callable[[NDArray[np.uint8], int, Any], tuple[int, int]]
"""``parser(text, end, accesses)``: as the kernels of `pagewalk.kernels.trace.parse`."""

Place = Callable[[int], str]


class Form(NamedTuple):
    """A text format.

    Attributes
    ----------
    parser : callable
        Gives a `Parser` for one reading of a file.
    cpu, process : bool
        Whether its lines say which.
    complete : bool
        Whether a last line without a line end counts as whole.
    mend : str
        What to do about a file that has none of its accesses.
    """

    parser: Callable[[], Parser]
    cpu: bool = False
    process: bool = False
    complete: bool = False
    mend: str = "record it again"


def _lackey() -> Parser:
    from pagewalk.kernels.trace.parse.lines import lackey

    return lackey


def _pinatrace() -> Parser:
    from pagewalk.kernels.trace.parse.lines import pinatrace

    return pinatrace


def _view() -> Parser:
    from pagewalk.kernels.trace.parse.lines import view

    cpu = 0

    def parse(text: NDArray[np.uint8], end: int, out: Any) -> tuple[int, int]:
        nonlocal cpu
        count, wrong, cpu = view(text, end, cpu, out)
        return count, wrong

    return parse


def _gem5() -> Parser:
    from pagewalk.kernels.trace.parse.lines import gem5

    whole = 0

    def parse(text: NDArray[np.uint8], end: int, out: Any) -> tuple[int, int]:
        nonlocal whole
        count, wrong, whole = gem5(text, end, whole, out)
        return count, wrong

    return parse


def _perf() -> Parser:
    from pagewalk.kernels.trace.parse.samples import perf

    return perf


LACKEY = Form(_lackey, mend="record with valgrind --tool=lackey --trace-mem=yes --log-file=FILE")
PINATRACE = Form(_pinatrace, mend="record with Pin's pinatrace, its output as it is")
VIEW = Form(_view, cpu=True, mend="print with drrun -t drmemtrace -tool view")
GEM5 = Form(_gem5, cpu=True, mend="run gem5 with --debug-flags=Exec or MemTest")
PERF = Form(
    _perf,
    cpu=True,
    process=True,
    mend="record addresses (perf mem record, or perf record -d) and print with perf script -F +addr,+ip",
)

_RECORD = {
    "lackey": rb"(?:(?:==|--|\*\*)[^\n]{0,1000}\n)*(?:I  | [LSM] )[0-9a-fA-F]{1,16},\d{1,5}\n",
    "pinatrace": rb"(?:#[^\n]{0,1000}\n)*0x[0-9a-fA-F]{1,16}: [RW] 0x",
    "view": rb"(?m:^) *\d{1,20} +\d{1,20}: +\S{1,40} +(?:ifetch|read|write|<marker:)",
    "gem5": rb"(?m:^) *\d{1,20}: [\w.]{1,200}:? [^\n]{0,400}(?: : |nitiating )",
    "perf": rb"(?m:^)[^\t#\n][^\n]{0,200}? \d{1,20}\.\d{1,20}: +(?:\d{1,20} +)?[^\s]{1,200}:(?:[ \n])",
}
"""What an access looks like; the first two must open the file, the others may stand anywhere in its head."""


def recognises(name: str) -> Callable[[Path, bytes], bool]:
    """By the look of a line."""
    pattern = re.compile(_RECORD[name])
    look = pattern.match if name in ("lackey", "pinatrace") else pattern.search
    return lambda path, head: b"\x00" not in head and look(head) is not None


def read(form: Form) -> Callable[[Path], Raw]:
    """Read a file of a format.

    The reading raises BadInput at a line that is none of the format, at a last line that is cut off, and at
    the end of a file that has no access at all.
    """

    def raw(path: Path) -> Raw:
        columns = ["flags", "cpu"] if form.cpu else ["flags"]
        return packed.raw(path, lambda size: parsed_file(path, form, size), *columns)

    return raw


def texts(
    blocks: Iterable[bytes], complete: bool, place: Place
) -> Iterator[tuple[NDArray[np.uint8], int, int]]:
    """Yield whole lines: the text, where it ends (line ends follow), and where it begins in the content.

    The array is the same each time, and overwritten.

    Parameters
    ----------
    blocks : iterable of bytes
        The content; at most `packed.BLOCK` bytes in each.
    complete : bool
        Whether a last line without a line end counts as whole.
    place : callable
        Words for the place of a byte.
    """
    from pagewalk.kernels.trace.parse.text import PADDING

    text = np.empty(LONGEST_LINE + packed.BLOCK + PADDING, np.uint8)
    rest, start = b"", 0
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if cut:
            end = len(rest) + cut
            text[: len(rest)] = np.frombuffer(rest, np.uint8)
            text[len(rest) : end] = np.frombuffer(block, np.uint8, cut)
            text[end : end + PADDING] = NEWLINE
            yield text, end, start
            rest, start = block[cut:], start + end
        else:
            rest += block
        if len(rest) > LONGEST_LINE:
            raise BadInput(place(start), "has no end", "is it text at all?")
    if rest:
        if not complete:
            raise BadInput(place(start), "ends within a line", "copy or record it again")
        text[: len(rest)] = np.frombuffer(rest, np.uint8)
        text[len(rest) : len(rest) + 1 + PADDING] = NEWLINE
        yield text, len(rest) + 1, start


def parsed(blocks: Iterable[bytes], form: Form, size: int, parse: Parser, place: Place) -> Iterator[RawChunk]:
    """Yield the accesses of a text in chunks of at most `size`; `place` names the place of a byte."""
    from pagewalk.kernels.trace.parse.text import Accesses

    processes, accesses, done = Processes(place(0)), 0, 0
    room = (LONGEST_LINE + packed.BLOCK) // 2 + 1
    address, cpus, ids = np.empty((3, room), np.int64)
    out = Accesses(address, np.empty(room, np.uint8), cpus, ids)
    for text, end, start in texts(blocks, form.complete, place):
        count, wrong = parse(text, end, out)
        if wrong >= 0:
            seen = bytes(text[wrong : wrong + 40]).split(b"\n")[0].decode("ascii", "replace")
            raise BadInput(place(start + wrong), f"{seen!r} is no access", form.mend)
        accesses, done = accesses + count, start + end
        chunk = RawChunk(out.address[:count].astype(np.uint64), out.flags[:count].copy())
        if form.cpu:
            cpu = np.maximum(out.cpu[:count], 0)
            if count and cpu.max() > 255:
                told = f"CPU {int(cpu.max())}"
                raise BadInput(place(done), told, "256 CPUs at most can be told apart; cut the file")
            chunk = chunk._replace(cpu=cpu.astype(np.uint8))
        if form.process:
            chunk = processes.spaced(chunk, out.process[:count])
        yield from pieces(chunk, size)
    if not accesses:
        raise BadInput(place(done), "no accesses up to here, where it ends", form.mend)


def parsed_file(path: Path, form: Form, size: int) -> Iterator[RawChunk]:
    """Yield the accesses of a file."""

    def place(byte: int) -> str:
        if is_pipe(path):
            return f"{path}: byte {byte}"
        line, done = 1, 0
        for block in packed.blocks(path):
            line += block[: byte - done].count(b"\n")
            done += len(block)
            if done >= byte:
                break
        return f"{path}: line {line}"

    return parsed(packed.blocks(path), form, size, form.parser(), place)
