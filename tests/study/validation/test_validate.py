"""Case files: what they say, what is refused, and how errors and verdicts come about."""

import json
import subprocess
import sys
import tomllib

import pytest

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.study.validation.case import KNEES, Unpredicted
from pagewalk.study.validation.read import build_case, machine_of, packaged, points, read
from pagewalk.study.validation.validate import Known, encode, outcome, validate

TINY = """
schema = "pagewalk.case/1"
title = "tiny"
source = "arithmetic"
machine = "textbook-fullassoc"
[pattern]
kind = "chase"
pages = 4
[[measured]]
quantity = "l1_misses"
value = 0
"""


def case_of(tmp_path, text):
    path = tmp_path / "case.toml"
    path.write_text(text)
    return read(str(path))


@pytest.mark.parametrize("name", packaged())
def test_packaged_cases_are_whole(name):
    case = read(name)
    if isinstance(case.pattern, Unpredicted):
        assert case.pattern.why
        return
    if case.machine:
        machine = machine_of(case)
        tables = {
            f"{kind}.{entry.name}" for kind in ("tlb", "psc", "cache") for entry in getattr(machine, kind)
        }
        for parameter in case.sets:
            where = parameter.rpartition(".")[0]
            assert where in tables | {"walker", "memory", "pattern"}, parameter
    for entry in case.measured:
        assert len(points(entry)) == len(entry.values or [entry.value])


FAST = [
    name
    for name in packaged()
    if name.startswith("knees-") and name not in ("knees-skylake-x", "knees-raptor-cove-stlb")
]


@pytest.mark.parametrize("name", FAST)
def test_knees_of_published_sweeps_are_exact(name):
    """Each processor's L1 and L2 TLB knees at each stride, as measured; off by nothing."""
    case = outcome(read(name), Known())
    assert {row.quantity for row in case.rows} <= set(KNEES)
    assert [row.predicted for row in case.rows] == [row.measured for row in case.rows]
    assert case.verdict == "inside"


def test_boot_tables_of_a_real_log_are_exact():
    case = outcome(read("boot-hash-tables"), Known())
    assert case.verdict == "inside"
    assert all(row.error == 0 for row in case.rows)


def test_what_set_a_preset_never_validates():
    """Whatever a preset says it worked out from a measurement must be marked in that measurement's case."""
    assert "own arithmetic on VMITOSIS GUPS 2M" in load("intel-skylake-sp").walker.assumed["start_cycles"]
    assert "walker.start_cycles" in read("gups-cascade-lake-2m").sets
    assert "own arithmetic on MEAS-Z3" in load("amd-zen3-milan").walker.assumed["start_cycles"]
    assert "walker.start_cycles" in read("zen3-guest-2m").sets
    assert "own arithmetic on CC-SPR" in load("intel-sapphire-rapids").walker.assumed["start_cycles"]
    assert "walker.start_cycles" in read("sapphire-rapids-l3").sets
    assert "own arithmetic on JIE-M1" in load("apple-m1-firestorm").walker.assumed["start_cycles"]
    assert "walker.start_cycles" in read("m1-firestorm-cycles").sets


def test_sizes_lists_ratios_and_bands(tmp_path):
    """64 fully associative L1 entries, a 2048-entry STLB; a miss costs 7, a walk 4 reads of 100."""
    case = case_of(
        tmp_path,
        TINY
        + """
[[measured]]
quantity = "stlb_misses"
at.pages = [2048, 4096]
values = [0, 0.5]
band = 0.1
[[measured]]
quantity = "walk_refs"
at = { pages = 4096, stride = "4K" }
over = { pages = 8192, stride = "2M", leaf = "2M" }
value = 1.3333
[[measured]]
quantity = "stlb_knee"
value = 2047
[[measured]]
quantity = "l1_knee"
value = 10
band = [1, 64]
""",
    )
    found = outcome(case, Known())
    assert [row.predicted for row in found.rows[:3]] == [0, 0, 1]
    assert [row.inside for row in found.rows] == [True, True, False, True, True, True]
    assert found.rows[2].error == pytest.approx(1.0)
    assert (found.rows[2].low, found.rows[2].high) == pytest.approx((0.45, 0.55))
    assert found.rows[3].predicted == pytest.approx(4 / 3)
    assert (found.rows[4].predicted, found.rows[4].low, found.rows[4].high) == (2048, 2046, 2048)
    assert found.verdict == "outside"
    assert found.inside == 5


def test_a_machine_may_be_in_the_case_or_beside_it(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "textbook-fullassoc"\n[[tlb]]\nname = "L1 DTLB"\nentries = 8\nways = 0\n'
    )
    assert "L1 DTLB" in [tlb.name for tlb in load("textbook-fullassoc").tlb]
    knee = '[[measured]]\nquantity = "l1_knee"\nvalue = 8\n'
    beside = case_of(tmp_path, TINY.replace("textbook-fullassoc", "mine.toml") + knee)
    inline = TINY.replace('machine = "textbook-fullassoc"\n', "").replace(
        "[pattern]",
        '[machine]\nextends = "textbook-fullassoc"\n'
        '[[machine.tlb]]\nname = "L1 DTLB"\nentries = 8\nways = 0\n[pattern]',
    )
    for case in (beside, case_of(tmp_path, inline + knee)):
        assert outcome(case, Known()).rows[1].predicted == 8


def test_a_trace_beside_the_case_and_figures_of_the_run(tmp_path):
    import numpy as np

    np.save(tmp_path / "a.npy", np.arange(0, 100 << 12, 4096, dtype=np.uint64))
    text = TINY.replace('kind = "chase"\npages = 4', 'kind = "trace"\ntrace = "a.npy"')
    text = text.replace('"l1_misses"\nvalue = 0', '"l1_misses"\nper = "run"\nvalue = 100')
    assert outcome(case_of(tmp_path, text), Known()).rows[0].predicted == 100


def test_words_that_people_measure_in(tmp_path):
    """64 entries, then 2048 of 8 ways; second-level hit 7 cycles, walk 4 reads of 100, data 100.

    Of 4,096 pages in turn every access walks; 16 MiB are 8 pages of 2M, which the first level holds.
    """
    case = case_of(
        tmp_path,
        TINY.replace(
            'machine = "textbook-fullassoc"',
            '[machine]\nextends = "textbook-fullassoc"\nname = "mine"\nclock_ghz = 2.0\n',
        )
        + """
[[measured]]
quantity = "ns"
at.span = ["16K", "512K", "16M"]
values = [50, 53.5, 253.5]
[[measured]]
quantity = "cycles"
at.span = "16M"
less.leaf = "2M"
value = 407
[[measured]]
quantity = "cycles_per_walk"
at.pages = 4096
value = 400
[[measured]]
quantity = "walk_active"
at.pages = 4096
value = 400
[[measured]]
quantity = "stlb_hits"
at.pages = [64, 128, 4096]
values = [0, 1, 0]
[[measured]]
quantity = "walk_refs_in memory"
at.pages = 4096
value = 4
[[measured]]
quantity = "l1_reach"
at.stride = ["4K", "16K"]
values = ["256K", "1M"]
[[measured]]
quantity = "stlb_reach"
at = { leaf = "2M", stride = "2M" }
value = "4G"
""",
    )
    rows = outcome(case, Known()).rows
    assert [row.predicted for row in rows] == pytest.approx([row.measured for row in rows])
    assert [(row.low, row.high) for row in rows if row.quantity == "l1_reach"] == [
        (63 << 12, 65 << 12),
        (63 << 14, 65 << 14),
    ]


def test_sizes_as_people_write_them(tmp_path):
    """Leaves and bytes in small letters, with or without a B; a table of updates of any number of words."""
    text = TINY.replace("pages = 4", 'span = "1.5 mib"\nleaf = "2mb"\nstride = "64k"')
    assert (case_of(tmp_path, text).pattern.count, case_of(tmp_path, text).pattern.leaf) == (24, "2M")
    text = TINY.replace('"chase"\npages = 4', '"updates"\ntable = "48 GB"')
    assert case_of(tmp_path, text).pattern.table == 48 << 30


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("ns", "no clock_ghz; give it"),
        ("cycles_per_walk", "nothing walks here"),
        ("walk_refs_in L1D", "no such cache; it has memory"),
    ],
)
def test_what_a_machine_cannot_say_is_refused(quantity, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        outcome(case_of(tmp_path, TINY.replace("l1_misses", quantity)), Known())


BAD = [
    ('schema = "pagewalk.case/1"', 'schema = "pagewalk.case/7"', "schema"),
    ('title = "tiny"', 'titel = "tiny"', "did you mean title?"),
    ('title = "tiny"', 'title = ""', "title: is empty"),
    ('source = "arithmetic"', "", "source"),
    ('machine = "textbook-fullassoc"', "", "machine: is missing"),
    ('"chase"', '"case"', "pattern"),
    ("pages = 4", "pagse = 4", "did you mean pages?"),
    ("pages = 4", 'pages = "4"', "pattern.pages"),
    ("pages = 4", "pages = 0", "pages: 0 is out of range"),
    ("pages = 4", "pages = 100_000_000", "out of range"),
    ("pages = 4", 'stride = "four"', "'four' is no size"),
    ("pages = 4", 'leaf = "3K"', "leaf"),
    ("pages = 4", "chains = 0", "at least one chain"),
    ("value = 0", "", "needs value or values"),
    ("value = 0", "value = 0\nvalues = [1]", "needs value or values"),
    ("value = 0", "values = [1]", "no list in at"),
    ("value = 0", "at.pages = [1, 2]\nvalues = [1]", "1 values for 2 of pages"),
    ("value = 0", "at = { pages = [1], chains = [1] }\nvalues = [1]", "give one list"),
    ("value = 0", "at.page = 3\nvalue = 1", "at.page: no key of this pattern"),
    ("value = 0", "over.pages = -1\nvalue = 1", "over.pages: -1 is out of range"),
    ("value = 0", "value = nan", "no measurement"),
    ("value = 0", "value = 1\nband = -1", "is no share"),
    ("value = 0", "value = 1\nband = [2, 1]", "is no [low, high]"),
    ('"l1_misses"', '"l1_mises"', "did you mean l1_misses?"),
    ('"l1_misses"', '"walk_pending"', "that is walk_cycles here"),
    ("pages = 4", 'page_size = "4K"', "that is leaf here"),
    ("pages = 4", 'span = "6K"', "no whole number of strides"),
    ("pages = 4", 'span = "1T"\nstride = 64', "give at most 8388608 times the stride"),
    ("value = 0", 'value = "much"', "'much' is no size"),
    ("value = 0", 'value = 1\nover.leaf = "2M"\nless.leaf = "2M"', "has over and less"),
    ('kind = "chase"\npages = 4', 'kind = "updates"\nmirror = true\ntable = "3G"', "no power of two"),
    ('kind = "chase"\npages = 4', 'kind = "updates"\ntable = 4097', "no whole number of 8-byte words"),
    ('"chase"', '"gups"', "that is updates here"),
    ('"l1_misses"', '"dtlb_load_misses.walk_duration:u"', "that is walk_cycles here"),
    ("pages = 4", 'frames = "random"', "give one of contiguous, filled, packed"),
    ('kind = "chase"\npages = 4', 'kind = "updates"', "table"),
    ("title", "\x00", "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "words"), BAD, ids=range(len(BAD)))
def test_bad_cases_are_refused_in_one_line(tmp_path, old, new, words):
    assert old in TINY
    with pytest.raises(BadInput) as refused:
        case_of(tmp_path, TINY.replace(old, new, 1))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_value_of_every_key_may_be_wrong(tmp_path):
    """Whatever stands where something else is wanted: refused, never a traceback."""
    for wrong in (1, -1, 1.5, "x", True, [], [[]], {}, {"a": 1}, [1], 10**30, float("inf")):
        whole = tomllib.loads(TINY)
        for table in (whole, whole["pattern"], whole["measured"][0]):
            for key, was in list(table.items()):
                table[key] = wrong
                try:
                    outcome(build_case(whole, tmp_path / "case.toml"), Known())
                except BadInput as error:
                    assert str(error).count("\n") == 0
                table[key] = was


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "pagewalk", "validate", *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_the_command(tmp_path):
    case_of(tmp_path, TINY)
    shown = run("case.toml", "knees-neoverse-v2", "--json", "out.json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "2 of 2 validating cases inside their bands" in shown.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["schema"] == "pagewalk.validation/1"
    assert [c["verdict"] for c in found["cases"]] == ["inside", "inside"]
    assert found["cases"][1]["rows"][0]["predicted"] == 48
    piped = run("case.toml", "--json", "-", cwd=tmp_path)
    assert json.loads(piped.stdout)["cases"][0]["name"] == "case"
    for bad in (["missing.toml"], ["case.toml", "--json", "out.json/x"]):
        refused = run(*bad, cwd=tmp_path)
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1
    assert run("--list", cwd=tmp_path).stdout.count("\n") == len(packaged())


def test_the_table_and_the_figures_show_every_case():
    from pagewalk.report.studies.validation import curves, errors, summary
    from pagewalk.report.style import drawing

    chosen = [read(name) for name in ("knees-zen5", "chase-golden-cove", "basu-2013", "knees-golden-cove")]
    found = validate(chosen)
    assert "1 of 1 validating cases" in summary(found)
    assert json.loads(encode(found))["cases"][2]["why"]
    with drawing():
        figure = curves(found.cases[1])
        assert len(figure.axes) == 3
        dots = figure.axes[0].lines[1].get_ydata()
        assert list(dots) == [row.measured for row in found.cases[1].rows[:7]]
        assert curves(found.cases[0]) is None
        assert [t.get_text() for t in errors(found).axes[0].get_yticklabels()] == ["knees-zen5"]
