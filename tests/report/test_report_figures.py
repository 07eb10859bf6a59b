import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import msgspec
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import fakes
from pagewalk.errors import BadInput
from pagewalk.replay.result import Replay
from pagewalk.report import figures, style, words
from pagewalk.study.compare import by_machine, comparisons

RESULTS = [
    fakes.worse, fakes.idle, fakes.single, fakes.many_regions, fakes.huge, fakes.several_machines,
    fakes.three_mappings,
]  # fmt: skip


def drawn(result):
    machine = next(iter(by_machine(result)))
    yield figures.misses(result)
    yield figures.by_caller(result, machine)
    yield figures.over_time(result, machine)
    yield figures.anatomy(result, machine)
    if len(comparisons(result)) > 1:
        yield figures.machines(result)


def texts(figure):
    """Every visible text with its box in pixels."""
    with style.drawing():
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        found = [*figure.texts]
        for axes in figure.axes:
            found += axes.texts
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title]
        shown = [text for text in found if text.get_visible() and text.get_text().strip()]
        return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


@pytest.mark.parametrize("make", RESULTS)
def test_no_text_lies_outside_of_the_picture_or_on_another(make):
    for figure in drawn(make()):
        boxes = texts(figure)
        assert boxes
        for said, box in boxes:
            assert 0 <= box.x0 <= box.x1 <= figure.bbox.width, said
            assert 0 <= box.y0 <= box.y1 <= figure.bbox.height, said
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
            assert apart, f"{one!r} lies on {other!r}"


def test_bars_are_as_long_as_the_rates():
    result = fakes.result(
        fakes.replay("base", accesses=1000, walks=40, cycles=900),
        fakes.replay("pmd", accesses=1000, walks=10, cycles=300),
    )
    panels = figures.misses(result).axes
    widths = {axes.get_title("left").split("\n")[0]: [p.get_width() for p in axes.patches] for axes in panels}
    assert widths["walk cycles"] == widths["exposed cycles"] == [900, 300]
    assert widths["page walks"] == [40, 10]
    assert widths["walk references"] == [48, 12]
    assert widths["L1 DTLB misses"] == [160, 40]


def test_shares_of_a_stack_add_up_to_one():
    axes = figures.anatomy(fakes.saving(), "textbook-setassoc").axes[0]
    rows = {}
    for patch in axes.patches:
        rows.setdefault(round(patch.get_y()), []).append(patch.get_width())
    assert [sum(widths) for widths in rows.values()] == pytest.approx([1, 1])
    assert rows[0][1] == pytest.approx(0.68, abs=0.001)


def test_a_short_last_window_is_a_rate_of_its_own_length():
    made = fakes.replay("base", accesses=250, windows=3)
    windows = type(made.windows)(
        accesses_per_window=100, l1_misses=[1, 1, 1], stlb_misses=[10, 20, 20], walk_cycles=[0, 0, 50]
    )
    result = fakes.result(msgspec.structs.replace(made, windows=windows), accesses=250)
    misses, cycles = figures.over_time(result, "textbook-setassoc").axes
    assert list(misses.patches[0].get_data().values) == [100, 200, 400]
    assert list(cycles.patches[0].get_data().values) == [0, 0, 1000]
    assert list(cycles.patches[0].get_data().edges) == [0, 100, 200, 250]


@pytest.mark.parametrize(
    ("before", "after", "title"),
    [
        ([5, 5], [4, 4], "PMD leaves cost fewer walk cycles all along the trace"),
        ([5, 5], [6, 6], "PMD leaves cost more walk cycles all along the trace"),
        ([5, 5], [5, 5], "PMD leaves change nothing at any time"),
        ([5, 5, 5], [4, 5, 6], "PMD leaves cost fewer walk cycles in 1 of 3 windows of the trace, more in 1"),
    ],
)
def test_the_title_over_time_follows_the_data(before, after, title):
    def made(mapping, cycles):
        one = fakes.replay(mapping)
        return msgspec.structs.replace(one, windows=msgspec.structs.replace(one.windows, walk_cycles=cycles))

    result = fakes.result(made("base", before), made("pmd", after))
    assert words.when(comparisons(result)[0]) == title


def test_the_title_by_caller_follows_the_data():
    assert words.who(comparisons(fakes.saving())[0]).startswith("alloc_large_system_hash gains most: 360")
    assert words.who(comparisons(fakes.worse())[0]).startswith("alloc_large_system_hash loses most: 81")
    assert words.who(comparisons(fakes.same())[0]) == "No caller's walk cycles change"


def test_the_title_of_the_anatomy_names_the_place_of_most_references():
    replays = [fakes.replay("base"), fakes.replay("pmd", weights=(50, 30, 15, 5))]
    assert words.where(replays) == "Walk references are most often found in L2: base 68 %; in L1D: pmd 50 %"
    assert words.where(fakes.idle().replays) == "No walk, so no walk reference"


def test_every_figure_is_written_as_png_and_svg(tmp_path):
    written = figures.save_all(fakes.saving(), tmp_path / "new")
    names = ["misses", "callers", "time", "anatomy", "price"]
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in written)
    for path in written:
        if path.suffix == ".svg":
            shown = "".join(ElementTree.parse(path).getroot().itertext())
            assert "textbook-setassoc" in shown, "text stays text"
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_machines_have_figures_of_their_own_with_safe_names(tmp_path):
    replays = [fakes.replay(m, cpu) for cpu in ("a/../b", "c") for m in ("base", "pmd")]
    names = {
        path.name for path in figures.save_all(fakes.result(*replays), tmp_path) if path.suffix == ".png"
    }
    own = {f"{kind}-{cpu}.png" for kind in ("callers", "time", "anatomy") for cpu in ("a_.._b", "c")}
    assert names == {"misses.png", "machines.png"} | own
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path}


def test_the_same_result_gives_the_same_bytes_in_another_process(tmp_path):
    code = (
        "import sys, pathlib, fakes; from pagewalk.report.figures import save_all; "
        "save_all(fakes.saving(), pathlib.Path(sys.argv[1]))"
    )
    for name, seed in (("one", "1"), ("two", "2")):
        environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "PATH": ""}
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, env=environment)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_folder_that_cannot_be_written_is_bad_input_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot be written"):
        figures.save_all(fakes.saving(), tmp_path / "file" / "figures")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("count", [0, 1])
def test_a_result_without_counts_is_bad_input(tmp_path, count):
    replays = [Replay(machine="m", mapping="base", counts={}, cycles={}, memory={})] * count
    with pytest.raises(BadInput, match="without counts"):
        figures.save_all(fakes.result(*replays), tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_accessed_and_no_region_still_draws(tmp_path):
    nothing = {"accesses": 0, "walks": 0, "windows": 0, "regions": []}
    result = fakes.result(
        *(fakes.replay(m, cpu, **nothing) for cpu in "ab" for m in ("base", "pmd")), accesses=0, pages=0
    )
    assert len(figures.save_all(result, tmp_path)) == 2 * (1 + 2 * 3 + 1)


def test_names_with_dollars_are_not_formulas(tmp_path):
    figures.save_all(fakes.result(fakes.replay("base", "$x_1$"), name="$\\frac{"), tmp_path)
    assert "$x_1$" in (tmp_path / "misses.svg").read_text()


def test_figures_need_no_window_system_and_leave_the_users_settings_alone():
    code = (
        "import sys, fakes, matplotlib; before = matplotlib.rcParams.copy(); "
        "from pagewalk.report import figures; figures.misses(fakes.saving()); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert matplotlib.rcParams.copy() == before"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    )


def test_the_two_hues_differ_for_colour_blind_eyes_and_in_grey_print():
    from matplotlib.colors import to_rgb

    def lightness(colour):
        linear = [((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return 116 * (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]) ** (1 / 3) - 16

    assert lightness(style.hue("base")) - lightness(style.hue("pmd")) > 15
