"""What stands beside results on a page: sweeps, curves, measurements, the life of a kernel's memory."""

import json
from itertools import pairwise

import msgspec
import pytest
from click.testing import CliRunner

import fakes
from fakes import measured_case as case
from fakes import measured_row as row
from outline import Outline, check_heard, check_whole
from pagewalk.cli.report import report
from pagewalk.errors import BadInput
from pagewalk.replay.result import KernelLife, encode
from pagewalk.report.pages.beside import changed_cell, heat
from pagewalk.report.pages.html import NARROW_INCHES
from pagewalk.report.pages.result import Beside, Named, page
from pagewalk.report.studies.curve import figure
from pagewalk.study.curve import Curve, Curves
from pagewalk.study.validation.validate import Validation


def cell(mapping, cycles, entries=512, ways=4, **more):
    where = {"cell": "x", "trace": "t", "machine": "m", "mapping": mapping, "cache_mode": "walks-only"}
    changes = {"tlb.STLB.entries": entries, "tlb.STLB.ways": ways}
    return {**where, **changes, "accesses": 1000, "walk_cycles": cycles, **more}


SWEEP = [
    cell("base", 400, 1024, 4),
    cell("pmd", 100, 1024, 4),
    cell("pmd", 500, 512, 4),
    cell("base", 800, 512, 4),
    cell("base", 700, 512, 8),
    cell("pmd", 1400, 512, 8),
    cell("base", 300, 1024, 8),
    cell("pmd", 300, 1024, 8),
]


def curves():
    def one(mapping, misses):
        return Curve(
            mapping=mapping,
            accesses=1_000_000,
            units=misses[-1],
            entries=[1, 64, 1024],
            misses=misses,
            l1="64 entries",
            l1_misses=misses[1],
            sets=[],
            ways=[],
            second_level_misses=[],
        )

    return Curves(
        trace="gitdiff", curves=[one("base", [900_000, 50_000, 8000]), one("pmd", [400_000, 900, 90])]
    )


def validation():
    return Validation(
        cases=[
            case("one", [row(10.0, 10.5, True), row(10.0, 14.0, False)]),
            case("two", [row(10.0, 9.0, True)]),
            case("set by it", [row(10.0, 99.0, False)], sets=["tlb"]),
            case("another", [row(10.0, 99.0, False)], machine="intel-skylake-sp"),
        ]
    )


def with_a_life():
    life = KernelLife(
        name="pmd",
        release="6.12",
        arch="x86-64",
        events=["boot", "allocate", "free"],
        accesses=[0, 10, 20],
        direct_map_kb={"DirectMap4k": [2048, 2048, 4096], "DirectMap2M": [8192, 8192, 6144]},
        counts={
            key: [0, 0, 0]
            for key in (
                *("merge", "flush-range", "failure", "attribute_calls", "purges", "huge_fallbacks"),
                *("left_read_only", "left_absent", "table_pages_taken"),
            )
        }
        | {"split": [0, 0, 1], "flush-all": [0, 1, 3]},
        memory={"areas": [0, 1, 0]},
    )
    return msgspec.structs.replace(fakes.saving(), kernels=[life])


def test_a_sweep_is_a_map_in_the_order_of_its_sizes():
    """By hand: 800 to 500 is -37.5 %, 700 to 1400 doubles, 400 to 100 is -75 %, 300 stays."""
    found = heat("sizes", SWEEP)
    assert found.columns == ["tlb.STLB.ways 4", "tlb.STLB.ways 8"]
    assert [head for head, _ in found.rows] == ["512", "1,024"]
    (_, small), (_, large) = found.rows
    assert [one.text.split(" (")[0] for one in (*small, *large)] == ["-37.5 %", "+100.0 %", "-75.0 %", "same"]
    assert [one.kind for one in (*small, *large)] == ["pmd", "base", "pmd", ""]
    assert found.message.endswith("change by +100.0 % to -75.0 % in 4 cells")


def test_a_sweep_in_which_every_cell_saves_says_so_once():
    """By hand: 800 to 500 is -37.5 %, 400 to 100 is -75 %; alone on a page, that is its heading."""
    saving = [row for row in SWEEP if "4" in str(row["tlb.STLB.ways"])]
    said = "PMD leaves save 37.5 % to 75.0 % of the walk cycles in 2 cells"
    assert heat("sizes", saving).message == said
    shown = Outline(page([], Beside(sweeps=[("sizes", saving)]))).words.replace("\xa0", " ")
    assert shown.count(said) == 1


def test_a_sweep_of_one_mapping_shows_its_cycles():
    found = heat("base only", [row for row in SWEEP if row["mapping"] == "base"])
    assert [[one.text for one in cells] for _, cells in found.rows] == [["800", "700"], ["400", "300"]]
    assert found.rows[0][1][0].share == 100


def test_a_sweep_tells_impossible_machines():
    failed = {"cell": "y", "mapping": "base", "tlb.STLB.ways": 3, "error": "m: tlb[1].ways: 512 / 3"}
    found = heat("some", [*SWEEP, failed])
    assert found.failed == ["m: tlb[1].ways: 512 / 3"]
    assert heat("none", [failed]).message == "No cell of this sweep is a possible machine"
    check_heard(page([], Beside(sweeps=[("none", [failed])])))


def test_something_from_nothing_is_no_percentage():
    assert changed_cell((0.0, 5.0)).text == "from 0 (0 → 5.00)"
    assert changed_cell((0.0, 0.0)).text == "same (0 → 0)"


def test_all_on_one_page():
    text = page(
        [Named("gitdiff", with_a_life())],
        Beside(sweeps=[("sizes", SWEEP)], curves=[curves()], validations=[validation()]),
    )
    check_whole(text)
    check_heard(text)
    said = " ".join(Outline(text).words.split())
    assert "measured cycles and misses (3 values) are off by 10 % in the median, by 40 % at worst" in said
    assert "event by event" in said
    assert "nearly every miss that a TLB can avoid" in said
    assert "-37.5" in said
    labels = [svg["aria-label"] for svg in Outline(text).all("svg")]
    assert any("base: 50.00 and 8.00 misses per 1000 accesses" in label for label in labels)


def run(*arguments):
    done = CliRunner().invoke(report, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_folder_of_all_kinds(tmp_path):
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SWEEP))
    (tmp_path / "result.json").write_bytes(encode(with_a_life()))
    (tmp_path / "curve.json").write_bytes(msgspec.json.encode(curves()))
    (tmp_path / "validation.json").write_bytes(msgspec.json.encode(validation()))
    (tmp_path / "other.json").write_text('{"schema": "pagewalk.machine/1"}')
    target = tmp_path / "out" / "page.html"
    run(tmp_path, "--out", target)
    said = " ".join(Outline(target.read_text()).words.split())
    for part in ("grid", "event by event", "Every size at once", "measured cycles"):
        assert part in said
    assert (tmp_path / "out" / "page-figures" / "life.svg").exists()


def test_a_sweep_alone_needs_no_result(tmp_path):
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SWEEP))
    run(tmp_path / "cells.jsonl", "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    check_heard(text)
    assert not (tmp_path / "page-figures").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cells.jsonl", "", "no row in it"),
        ("cells.jsonl", '{"mapping": "base", "walk_cy', "line 1: no row of a sweep"),
        ("cells.jsonl", '{"mapping": "base"}\n', "no accesses in it"),
        ("cells.jsonl", "[1]\n", "no row of a sweep"),
        ("a.json", '{"schema": "pagewalk.curve/1", "trace": 3}', "damaged"),
        ("a.json", '{"schema": "pagewalk.validation/1", "cases": {}}', "damaged"),
        ("a.json", '{"schema": "pagewalk.validation/1", "cases": []}', "nothing but validations"),
        ("a.json", '{"schema": "pagewalk.result/1"}', "not a pagewalk.result/1"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message):
        run(tmp_path / name, "--out", tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_on_a_phone_no_processors_label_lies_on_another():
    found = curves()
    drawn = figure(found.trace, found.curves, {"n1": 1280, "skylake": 1536, "zen3": 2048, "m1": 3072})
    drawn.set_size_inches(NARROW_INCHES, drawn.get_figheight())
    drawn.canvas.draw()
    labels = [text for text in drawn.axes[0].texts if text.get_rotation() == 90]
    assert [text.get_text() for text in labels] == [
        "1,280 to 1,536  2 processors",
        "2,048  zen3",
        "3,072  m1",
    ]
    boxes = [text.get_window_extent() for text in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
