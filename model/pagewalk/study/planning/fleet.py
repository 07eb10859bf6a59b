"""Many machines at once: a folder with a folder of saved files for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from pagewalk.errors import BadInput
from pagewalk.study.planning.plan import ACCESSES_PER_SECOND, Plan, plan
from pagewalk.study.planning.snapshot import files_of, take


class Fleet(Struct, frozen=True, kw_only=True):
    """The plans of many machines, by name."""

    schema: Literal["pagewalk.fleet/1"] = "pagewalk.fleet/1"
    plans: list[Plan]


def plan_fleet(
    folder: Path,
    *,
    kernel: str = "",
    processor: str = "",
    accesses_per_second: float = ACCESSES_PER_SECOND,
    progress: Callable[[int], None] | None = None,
) -> Fleet:
    """Plan for every machine whose files are in a folder of `folder`.

    Parameters
    ----------
    folder : Path
    kernel, processor : str
        For machines whose files do not tell; "" for none.
    accesses_per_second : float
        As of `plan`.
    progress : callable, optional
        Called with 1 after each machine.

    Raises
    ------
    BadInput
        No machine, or one whose files are damaged or tell too little.
    """
    try:
        hosts = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise BadInput(folder, error.strerror or "cannot be read", "name a folder of folders") from error
    if not hosts:
        raise BadInput(folder, "no folder in it", "save each machine's files in a folder of its own")
    plans = []
    for host in hosts:
        taken = take(files_of(host), name=host.name, kernel=kernel, processor=processor)
        plans.append(plan(taken, accesses_per_second=accesses_per_second))
        if progress is not None:
            progress(1)
    return Fleet(plans=plans)


def encode(fleet: Fleet) -> bytes:
    """The fleet as indented JSON, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(fleet), indent=1) + b"\n"
