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
