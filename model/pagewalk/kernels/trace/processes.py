"""Where a CPU goes on with another process than its last."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import jit


@jit
def switches(
    space: NDArray[np.uint16], cpu: NDArray[np.uint8], running: NDArray[np.uint16], at: NDArray[np.int32]
) -> int:
    """Write to `at` the positions of accesses in another space than the latest one of their CPU.

    Space 0, the kernel's, is none. `running` has the space of each of 256 CPUs, 0 before its first, and is
    carried on. Returns how many positions there are.
    """
    count = 0
    for i in range(len(space)):
        before = running[cpu[i]]
        if space[i] != 0 and space[i] != before:
            running[cpu[i]] = space[i]
            if before != 0:
                at[count] = i
                count += 1
    return count
