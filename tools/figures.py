"""Make the pictures in docs/images and the tables of README.md and docs/results.md anew.

    python tools/figures.py

The first come from the packaged kernel trace, by the scenario that ``pagewalk run`` runs, the second from the
same trace on the server presets of x86-64, others from the scenarios they are named after. A table stands
between two comment lines that name it.
"""

import re
import shutil
import tempfile
from pathlib import Path

import direct_map_splits

from pagewalk.hardware.load import load
from pagewalk.replay.result import Result
from pagewalk.report.figures import save_all
from pagewalk.report.studies.kernel_life import save_life
from pagewalk.report.style import save
from pagewalk.report.tables import text
from pagewalk.study.play.result import lives_of, played
from pagewalk.study.replays import replays, result, subject
from pagewalk.study.scenario import DEFAULT, read

ROOT = Path(__file__).parent.parent
PROCESSORS = (
    "intel-skylake-sp", "intel-ice-lake-sp", "intel-sapphire-rapids", "intel-granite-rapids",
    "amd-zen2-rome", "amd-zen3-milan", "amd-zen4-genoa", "amd-zen5-turin",
)  # fmt: skip


def main() -> None:
    one, many = of_scenario(), of_scenario(PROCESSORS)
    pictures(one, ("misses", "callers", "time", "anatomy"))
    pictures(many, ("machines",))
    pictures_of_scenarios()
    save(direct_map_splits.figure, ROOT / "docs" / "images" / "splits.png")
    tables = {"run": text(one), "answer": answer(one), "machines": text(many)}
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        page.write_text(with_tables(page.read_text(), tables))


def of_scenario(machines: tuple[str, ...] = ()) -> Result:
    """Run the default scenario, on other machines than its own if any are named."""
    scenario = read(DEFAULT)
    opened, loaded = subject(scenario.trace), [load(name) for name in machines or scenario.machines]
    found = replays(opened, loaded, scenario.mappings, cache_mode=scenario.cache_mode)
    return result(opened, loaded, found)


def pictures_of_scenarios() -> None:
    """Write pictures of scenarios with modelled kernels, named after them."""
    wanted = {
        "exchange": ["life"],
        "bpf": ["life", "time"],
        "modules": ["life"],
        "architectures": ["machines"],
    }
    for name, names in wanted.items():
        scenario = read(name)
        loaded = [load(machine) for machine in scenario.machines]
        found = played(scenario, loaded, lives_of(scenario, loaded))
        with tempfile.TemporaryDirectory() as folder:
            save_all(found, Path(folder))
            save_life(found, Path(folder))
            for picture in names:
                target = name if picture == "machines" else f"{name}-{picture}"
                shutil.copyfile(Path(folder) / f"{picture}.png", ROOT / "docs" / "images" / f"{target}.png")


def answer(found: Result) -> str:
    """The first table alone: what stands above where the walk references were found."""
    return text(found).partition("\nwalk references found")[0]


def pictures(found: Result, names: tuple[str, ...]) -> None:
    """Write the named figures to docs/images as PNG."""
    with tempfile.TemporaryDirectory() as folder:
        save_all(found, Path(folder))
        for name in names:
            shutil.copyfile(Path(folder) / f"{name}.png", ROOT / "docs" / "images" / f"{name}.png")


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Put each table between its lines ``<!-- table NAME -->`` and ``<!-- end -->``, where there are any."""
    for name, table in tables.items():
        block = f"<!-- table {name} -->\n```text\n{table}```\n<!-- end -->"
        page = re.sub(
            rf"<!-- table {name} -->\n.*?<!-- end -->", lambda _, block=block: block, page, flags=re.S
        )
    return page


if __name__ == "__main__":
    main()
