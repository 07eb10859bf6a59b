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


READ, WRITE, INSTR, RETURN, BUNDLE, PID, FOOTER, MARKER = 0, 1, 10, 16, 17, 24, 26, 28
MAYBE_FETCH, SYSENTER, TAKEN_OR_NOT = 30, 31, (48, 49)
"""DynamoRIO's trace_type_t (clients/drcachesim/common/trace_entry.h, trace format 5)."""

CPU_ID, CPU_MASK = 3, 0xFFF
"""The marker that names the CPU, in its low 12 bits (trace_marker_type_t there)."""

DRMEMTRACE_MOST = 8
"""Accesses of one entry: a bundle has the lengths of eight instructions at most."""


@jit
def drmemtrace(
    kind: NDArray[np.uint16],
    size: NDArray[np.uint16],
    value: NDArray[np.int64],
    state: NDArray[np.int64],
    address: NDArray[np.int64],
    flags: NDArray[np.uint8],
    cpu: NDArray[np.int64],
    process: NDArray[np.int64],
) -> tuple[int, int]:
    """Take apart ``trace_entry_t`` records.

    `state` holds CPU, process, and where the next instruction of a bundle is. Returns how many accesses there
    were, and the first entry that cannot be (-1 if all can).
    """
    count = 0
    for i in range(len(kind)):
        type_, accesses, flag, start = kind[i], 0, FETCH, value[i]
        if type_ in (READ, WRITE):
            accesses, flag = 1, STORE if type_ == WRITE else 0
        elif INSTR <= type_ <= RETURN or MAYBE_FETCH <= type_ <= SYSENTER or type_ in TAKEN_OR_NOT:
            accesses = 1
            state[2] = value[i] + size[i]
        elif type_ == BUNDLE:
            accesses = size[i]
        elif type_ == PID:
            state[1] = value[i]
        elif type_ == MARKER and size[i] == CPU_ID:
            state[0] = 0 if value[i] == -1 else value[i] & CPU_MASK
        elif type_ > TAKEN_OR_NOT[1]:
            return count, i
        if accesses > DRMEMTRACE_MOST:
            return count, i
        for k in range(accesses):
            if type_ == BUNDLE:
                start = state[2]
                state[2] += (value[i] >> 8 * k) & 0xFF
            bits = 0
            while type_ != BUNDLE and bits < 7 and 1 << bits < size[i]:
                bits += 1
            address[count], flags[count] = start, flag | bits
            cpu[count], process[count] = state[0], state[1]
            count += 1
    return count, -1
