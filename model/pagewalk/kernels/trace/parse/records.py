"""Records of fixed size in other tools' binary formats, taken apart."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import jit

NOTE_CPU, NOTE_CR3, NOTE_CR4 = 1, 2, 3
"""Notes of a kernel capture that its reader understands (tools/kernel-trace/memtrace.c)."""


@jit
def capture(
    word: NDArray[np.int64],
    address_bits: int,
    cpu: int,
    address: NDArray[np.int64],
    flags: NDArray[np.uint8],
    cpus: NDArray[np.uint8],
    note: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Take apart the words of a kernel capture: address in the low bits, flags above them, notes negative.

    `cpu` is whose records come first. A row of `note` gets position, kind and CPU of each note that is not
    about the CPU. Returns how many records and notes there were, and the CPU at the end.
    """
    low, sign = (1 << address_bits) - 1, 1 << (address_bits - 1)
    records = notes = 0
    for i in range(len(word)):
        if word[i] < 0:
            kind = word[i] & 0xFF
            if kind == NOTE_CPU:
                cpu = (word[i] >> 8) & 0xFF
            else:
                note[notes, 0], note[notes, 1], note[notes, 2] = records, kind, (word[i] >> 8) & 0xFF
                notes += 1
        else:
            address[records] = ((word[i] & low) ^ sign) - sign
            flags[records] = (word[i] >> address_bits) & 0x3F
            cpus[records] = cpu
            records += 1
    return records, notes, cpu


STORE, KERNEL, FETCH = 0x08, 0x10, 0x20
"""As in pagewalk.trace.trace."""

WORD_LOG2 = 3

CHAMPSIM_MOST = 7
"""Accesses of one ChampSim record: the instruction, four sources, two destinations."""


@jit
def champsim(record: NDArray[np.int64], address: NDArray[np.int64], flags: NDArray[np.uint8]) -> int:
    """Take apart ``input_instr`` records; int64, shape (records, 8): ip, registers, 2 stores, 4 loads.

    Writes a fetch, the loads, the stores of each; an address of 0 is none. Returns how many accesses.
    """
    count = 0
    for i in range(len(record)):
        kernel = KERNEL if record[i, 0] < 0 else 0
        address[count], flags[count] = record[i, 0], FETCH | kernel
        count += 1
        for k in range(4, 10):
            word = k if k < 8 else k - 6
            if record[i, word] != 0:
                address[count] = record[i, word]
                flags[count] = WORD_LOG2 | kernel | (0 if k < 8 else STORE)
                count += 1
    return count


BUNDLE, MARKER = 17, 28
"""Of DynamoRIO's trace_type_t (clients/drcachesim/common/trace_entry.h, trace format 5)."""

CPU_ID, CPU_MASK, CPUS = 3, 0xFFF, 256
"""The marker that names the CPU, in its low 12 bits (trace_marker_type_t there), and how many
CPUs a trace can tell apart."""

DRMEMTRACE_MOST = 8
"""Accesses of one entry: a bundle has the lengths of eight instructions at most."""

PASSED, LOAD, STORED, FETCHED, BUNDLED, PROCESS, MARKED, UNKNOWN = range(8)
MEANING = np.full(256, UNKNOWN, np.uint8)
"""What becomes of an entry of a type: 50 and more are not known."""
MEANING[:50] = PASSED
MEANING[10:17] = MEANING[[30, 31, 48, 49]] = FETCHED
MEANING[[0, 1, BUNDLE, 24, MARKER]] = LOAD, STORED, BUNDLED, PROCESS, MARKED

ACCESS = np.array([0, 0, STORE, FETCH], np.uint8)
"""Flags of LOAD, STORED, FETCHED."""

SIZE_LOG2 = np.array([0, 0, *(int(size - 1).bit_length() for size in range(2, 129))], np.uint8)
"""log2 of a size in bytes, rounded up."""


@jit
def drmemtrace(
    entry: NDArray[np.uint32],
    state: NDArray[np.int64],
    address: NDArray[np.int64],
    flags: NDArray[np.uint8],
    cpu: NDArray[np.uint8],
    process: NDArray[np.int64],
) -> tuple[int, int]:
    """Take apart ``trace_entry_t`` records; uint32, shape (records, 3): type and size, value low, value high.

    `state` holds CPU, process, and where the next instruction of a bundle is. Returns how many accesses there
    were, and the first entry that cannot be (-1 if all can).
    """
    count = 0
    here, who, following = state[0], state[1], state[2]
    for i in range(len(entry)):
        type_, size = np.int64(entry[i, 0] & 0xFFFF), np.int64(entry[i, 0] >> 16)
        value = np.int64(np.int32(entry[i, 2])) << 32 | np.int64(entry[i, 1])
        meaning = MEANING[type_] if type_ < len(MEANING) else UNKNOWN
        if LOAD <= meaning <= FETCHED:
            address[count] = value
            flags[count] = ACCESS[meaning] | (SIZE_LOG2[size] if size <= 128 else 7)
            cpu[count], process[count] = here, who
            count += 1
            if meaning == FETCHED:
                following = value + size
        elif meaning == BUNDLED:
            if size > DRMEMTRACE_MOST:
                return count, i
            for k in range(size):
                address[count], flags[count] = following, FETCH
                cpu[count], process[count] = here, who
                following += (value >> 8 * k) & 0xFF
                count += 1
        elif meaning == PROCESS:
            who = value
        elif meaning == MARKED and size == CPU_ID:
            here = 0 if value == -1 else value & CPU_MASK
            if here >= CPUS:
                return count, i
        elif meaning == UNKNOWN:
            return count, i
    state[0], state[1], state[2] = here, who, following
    return count, -1
