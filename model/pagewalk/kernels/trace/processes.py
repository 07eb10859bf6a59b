"""Where a CPU goes on with another process than its last."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import jit


@jit
def switches(
    space: NDArray[np.uint16],
    cpu: NDArray[np.uint8],
    running: NDArray[np.uint16],
    known: NDArray[np.bool_],
    at: NDArray[np.int32],
    to: NDArray[np.uint16],
    began: NDArray[np.bool_],
) -> int:
    """Write the positions of accesses in another space than the latest one of their CPU to `at`, it to `to`.

    Space 0, the kernel's, is none. `running` has the space of each of 256 CPUs, 0 before its first, `known`
    whether it has switched; both are carried on. Before a CPU's first switch stands the space that it began
    in, marked in `began`. Returns how many were written, at most one for each access and one for each CPU.
    """
    count = 0
    for i in range(len(space)):
        before = running[cpu[i]]
        if space[i] != 0 and space[i] != before:
            running[cpu[i]] = space[i]
            if before != 0:
                if not known[cpu[i]]:
                    known[cpu[i]] = True
                    at[count], to[count], began[count] = i, before, True
                    count += 1
                at[count], to[count], began[count] = i, space[i], False
                count += 1
    return count
