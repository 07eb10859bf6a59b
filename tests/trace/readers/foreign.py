"""Writers of other tools' formats, each after the format's own description and not after our readers.

An access is (kind, address, size in bytes, cpu, process) with a kind of "load", "store" or "fetch".
"""

import struct
from typing import NamedTuple

from pagewalk.trace.trace import FETCH, STORE


class Access(NamedTuple):
    kind: str
    address: int
    size: int = 8
    cpu: int = 0
    process: int = 100


def flags(access, size=True):
    """The flags column that an access should have in a trace."""
    bits = next(bits for bits in range(8) if bits == 7 or 1 << bits >= access.size) if size else 0
    return bits | {"load": 0, "store": STORE, "fetch": FETCH}[access.kind]


def kernel(address):
    """Whether an address lies in the upper half."""
    return address >> 63 == 1


def lackey(accesses):
    """Valgrind's lackey/lk_main.c: "I  %08lx,%lu\\n", " L %08lx,%lu\\n", " S"; " M" is a load and a store."""
    lines, skip = [b"==1== Lackey, an example Valgrind tool", b"==1== "], False
    for this, following in zip(accesses, [*accesses[1:], None], strict=True):
        if skip:
            skip = False
            continue
        letters = {"fetch": "I ", "load": " L", "store": " S"}[this.kind]
        if this.kind == "load" and following is not None and following == this._replace(kind="store"):
            letters, skip = " M", True
        lines.append(b"%s %08x,%d" % (letters.encode(), this.address, this.size))
    return b"\n".join([*lines, b"==1== Exit code:       0"]) + b"\n"


def pinatrace(accesses):
    """Pin's ManualExamples/pinatrace.cpp: fprintf(trace, "%p: R %p\\n", ip, addr), "#eof" at the end."""
    lines = [b"0x401000: %s 0x%x" % ({"load": b"R", "store": b"W"}[a.kind], a.address) for a in accesses]
    return b"\n".join([*lines, b"#eof"]) + b"\n"


def view(accesses):
    """DynamoRIO's clients/drcachesim/tools/view.cpp, as its documentation shows it."""
    lines = [
        "Output format:",
        "<--record#-> <--instr#->: <---tid---> <record details>",
        "-" * 60,
        "           1           0:     2765542 <marker: version 5>",
    ]
    cpu = 0
    for number, access in enumerate(accesses, 2):
        start = f"{number:>12}{number // 2:>12}:     2765542 "
        if access.cpu != cpu:
            cpu = access.cpu
            lines.append(f"{start}<marker: tid 2765542 on core {cpu}>")
        word = {"fetch": "ifetch", "load": "read", "store": "write"}[access.kind]
        after = (
            " 48 89 e7             mov    %rsp -> %rdi"
            if access.kind == "fetch"
            else " by PC 0x0000000000401000"
        )
        lines.append(f"{start}{word:<12}{access.size:>2} byte(s) @ 0x{access.address:016x}{after}")
    return "\n".join(lines).encode() + b"\n"


def gem5(accesses):
    """gem5's src/cpu/exetrace.cc. A data access needs an instruction: it gets the latest fetch's address.

    The first micro-operation of an instruction that does several accesses stands for its fetch.
    """
    lines, code, step = (
        ["gem5 Simulator System.  https://www.gem5.org", "info: Entering event queue @ 0."],
        0x1000,
        0,
    )
    for tick, access in enumerate(accesses):
        cpu = f"{500 * tick:>7}: system.cpu{access.cpu}: "
        if access.kind == "fetch":
            code, step = access.address, 0
            lines.append(f"{cpu}T0 : 0x{code:x} @f.part.0+4    :   add x1, x2, #4        : IntAlu :  D=0x05")
            continue
        step += 1
        word, about = ("MemRead", "ldr") if access.kind == "load" else ("MemWrite", "str")
        lines.append(
            f"{cpu}A0 T0 : 0x{code:x} @f.part.0+4.{step:>2} :   {about}   x1, [x2]       : {word} :  "
            f"D=0x0000000000000000 A=0x{access.address:x}  FetchSeq=5  CPSeq=3  flags=(IsInteger|IsMicroop)"
        )
    return "\n".join(lines).encode() + b"\n"


def perf(accesses):
    """perf's builtin-script.c: comm, pid/tid, cpu, time, period, event, addr, data_src, ip, sym."""
    lines = ["# ========", "# captured on    : Mon Nov 23 20:19:08 2026"]
    for time, access in enumerate(accesses):
        source = {"load": "10668100842 |OP LOAD", "store": "5080144 |OP STORE"}[access.kind]
        who = f"  my prog:1 {access.process}/{access.process + 1} [{access.cpu:03}] {time // 7}.{time:06}:"
        what = f"          1 cpu/mem-loads,ldlat=30/P: {access.address:16x} {source}|LVL L1 hit|SNP None"
        lines.append(
            f"{who}{what}|TLB L1 or L2 hit|LCK No|BLK  N/A   7fad7c47425d main+0x4 (/usr/bin/my prog)"
        )
        lines.append("\t    7fad7c47425d main+0x4 (/usr/bin/my prog)")
        lines.append("")
    return "\n".join(lines).encode() + b"\n"


def csv(accesses, separator=",", base=16):
    """Columns by name, in an order of our own."""
    number = hex if base == 16 else str
    rows = [("time", "pid", "addr", "rw", "size", "core")]
    rows += [
        (str(time), str(a.process), number(a.address), a.kind, str(a.size), str(a.cpu))
        for time, a in enumerate(accesses)
    ]
    return "\r\n".join(separator.join(row) for row in rows).encode()


def champsim(accesses):
    """ChampSim's inc/trace_instruction.h, input_instr: each fetch and the accesses after it are one record.

    Loads come before stores there, at most four and two; the accesses must be so.
    """
    content, here = b"", None

    def record(code, loads, stores):
        stores, loads = stores + [0] * (2 - len(stores)), loads + [0] * (4 - len(loads))
        return struct.pack("<QBB2B4B2Q4Q", code, 1, 0, 6, 25, 1, 2, 3, 4, *stores, *loads)

    for access in accesses:
        if access.kind == "fetch":
            content += record(*here) if here else b""
            here = (access.address, [], [])
        else:
            here[1 if access.kind == "load" else 2].append(access.address)
    return content + (record(*here) if here else b"")


def drmemtrace(accesses, footer=True):
    """DynamoRIO's trace_entry.h: header 25, thread 22, pid 24, marker 28 (CPU: 3), encoding 47, footer 26."""
    entry = struct.Struct("<HHQ").pack
    content = entry(25, 0, 5) + entry(28, 8, 5) + entry(22, 4, 7)
    cpu = process = None
    for number, access in enumerate(accesses):
        if access.process != process:
            process = access.process
            content += entry(24, 4, process)
        if access.cpu != cpu:
            cpu = access.cpu
            content += entry(28, 2, 13_000_000_000 + number) + entry(28, 3, 1 << 12 | cpu)
        if access.kind == "fetch":
            content += entry(47, 8, 0x1234) + entry(
                (10, 13, 16, 31, 48, 49)[number % 6], access.size, access.address
            )
        else:
            content += entry(0 if access.kind == "load" else 1, access.size, access.address)
        if number % 5 == 0:
            content += entry(3, 1, access.address ^ 64)  # a prefetch
    return content + entry(23, 4, 7) + (entry(26, 0, 0) if footer else b"")


def capture(accesses, cpus=2):
    """tools/kernel-trace/memtrace.c, version 2."""
    words, cpu = [], None
    for access in accesses:
        if access.cpu != cpu:
            cpu = access.cpu
            words.append(1 << 63 | 1 | cpu << 8)
        bits = flags(access) & 7
        word = access.address & (1 << 57) - 1 | bits << 57 | (access.kind == "store") << 60
        words.append(word | (access.kind == "fetch") << 62)
    return b"pwcaptur" + struct.pack(f"<II{len(words)}Q", 2, cpus, *words)


def old_capture(accesses):
    """Captures without a header: 48 bits of address, size in bits 48-50, store 51, fetch 53, marker 63."""
    words = [1 << 63 | 0x10]
    for access in accesses:
        word = access.address & (1 << 48) - 1 | (flags(access) & 7) << 48
        words.append(word | (access.kind == "store") << 51 | (access.kind == "fetch") << 53)
    return struct.pack(f"<{len(words)}Q", *words)
