"""The one decorator of all kernels, and where their compiled form is kept.

Numba's own cache does not notice an edit in another file, so the folder's name carries a digest of all
kernel sources and of every setting that changes the machine code.
"""

import hashlib
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numba
import platformdirs


def cache_folder() -> Path:
    """The folder of this version of the kernels; ``PAGEWALK_CACHE_DIR`` overrides the parent."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    for setting in ("NUMBA_BOUNDSCHECK", "NUMBA_OPT", "NUMBA_CPU_NAME"):
        digest.update(f"{setting}={os.environ.get(setting, '')}".encode())
    parent = os.environ.get("PAGEWALK_CACHE_DIR") or platformdirs.user_cache_dir("pagewalk")
    return Path(parent) / "kernels" / digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


CACHE = cache_folder()
KEPT = _writable(CACHE)
WARM = KEPT and any(CACHE.rglob("*.nbi"))
"""Whether compiled kernels were found when this process started."""

if KEPT:
    numba.config.CACHE_DIR = str(CACHE)  # type: ignore[attr-defined]
else:
    warnings.warn(f"{CACHE} is not writable: kernels are compiled in every process", stacklevel=1)

jit = numba.njit(cache=KEPT, nogil=True)
"""For functions that Python calls."""

inline = numba.njit(nogil=True, inline="never")
"""For functions that only kernels call; compiled into each caller by LLVM."""

lean_jit = jit
lean_inline = inline
"""The same for functions that allocate nothing: arrays are passed on without counting references to them, two
atomic steps for each array of each call otherwise."""
if not TYPE_CHECKING:  # numba's types do not know the option
    lean_jit = numba.njit(cache=KEPT, nogil=True, _nrt=False)
    lean_inline = numba.njit(nogil=True, inline="never", _nrt=False)
