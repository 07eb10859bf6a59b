"""Make the packaged sample trace: the first records of a recorded `git diff`, with its layout.

    python tools/make_sample.py TRACE_FOLDER

TRACE_FOLDER is the `gitdiff` trace that the sample was cut from (69 million records). The same input gives
the same columns; their compressed bytes depend on the zstd release.

16 Mi records are enough to show the case: they touch 5500 base pages of the dentry hash table, a third of it
and more than three times what an STLB of 1536 entries holds, and all of its 32 PMD leaves.
"""

import shutil
import sys
from pathlib import Path

from pagewalk.trace import sample
from pagewalk.trace.cut import cut
from pagewalk.trace.open import open_trace
from pagewalk.trace.store.write import write_trace

RECORDS = 1 << 24


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sample.__file__).with_name("gitdiff")
    shutil.rmtree(target, ignore_errors=True)
    whole = open_trace(sys.argv[1])
    write_trace(cut(whole, 0, RECORDS), target, source=f"gitdiff[0:{RECORDS}], sha256 {whole.digest()}")


if __name__ == "__main__":
    main()
