"""Result pages: whole in themselves, for every reader, and looked at in a browser."""

import re

import msgspec
import pytest
from click.testing import CliRunner
from PIL import Image

import fakes
from browser import dom, needs_chromium, pdf, screenshot
from outline import Outline, check_heard, check_whole
from pagewalk.cli.report import report
from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.replay.result import encode
from pagewalk.report.pages.result import Named, page
from pagewalk.study.compare import comparisons


def on_preset(result):
    """A made-up result that claims to be of the preset as it is."""
    made = msgspec.structs.replace(
        result.provenance, machine_sha256={"textbook-setassoc": load("textbook-setassoc").sha256}
    )
    return msgspec.structs.replace(result, provenance=made)


PAGES = {
    "saving": lambda: page([Named("gitdiff", on_preset(fakes.saving()))]),
    "worse": lambda: page([Named("worse", fakes.worse())]),
    "idle": lambda: page([Named("idle", fakes.idle())]),
    "single": lambda: page([Named("one mapping", fakes.single())]),
    "three mappings": lambda: page([Named("three", fakes.three_mappings())]),
    "many callers": lambda: page([Named("many", fakes.many_regions())]),
    "huge": lambda: page([Named("huge", fakes.huge())]),
    "machines": lambda: page([Named("machines", fakes.several_machines(3))]),
    "several": lambda: page(
        [Named("first", fakes.saving()), Named("second", fakes.worse()), Named("third", fakes.single())]
    ),
}


@pytest.fixture(scope="module")
def pages():
    return {name: make() for name, make in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_in_itself(pages, name):
    check_whole(pages[name])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_heard(pages, name):
    check_heard(pages[name])
    drawn = Outline(pages[name]).all("svg")
    assert drawn
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in drawn)


def test_the_first_words_are_the_answer(pages):
    """40,000 walks become 9,000, and cycles with them (36 for each walk)."""
    first = Outline(pages["saving"]).words.split("By caller")[0]
    assert "PMD leaves save 77.5\u00a0% of the walk cycles on textbook-setassoc" in first
    assert "720 → 162" in first
    assert "more walk cycles" in Outline(pages["worse"]).words
    assert "No page walk" in Outline(pages["idle"]).words
    assert "-77.5\u00a0%" in Outline(pages["several"]).words


def test_parameters_stand_with_their_sources(pages):
    """Of the machine as it was; a machine that is another one today is not passed off as that."""
    known = Outline(pages["saving"]).words
    assert "contract: two textbook machines" in known
    assert "assumed: none: cycles only" in known
    other = page([Named("x", fakes.result(fakes.replay("base", "textbook-setassoc")))])
    assert "Figures of textbook-setassoc" in other, "no digest was recorded: today's description is shown"
    changed = fakes.saving()
    made = msgspec.structs.replace(changed.provenance, machine_sha256={"textbook-setassoc": "0" * 64})
    changed = page([Named("x", msgspec.structs.replace(changed, provenance=made))])
    assert "Figures of textbook-setassoc" not in changed
    assert "described otherwise today" in changed
    unknown = page([Named("x", fakes.result(fakes.replay("base", "of-my-own")))])
    assert "a machine file that is not at hand" in unknown


def test_the_same_results_give_the_same_page(pages):
    assert PAGES["saving"]() == pages["saving"]


def test_a_hostile_name_is_text():
    evil = '<script>alert("x")</script>&amp;"'
    text = page([Named(evil, fakes.result(fakes.replay("base", evil), fakes.replay("pmd", evil), name=evil))])
    assert "<script" not in text
    assert "alert(" in Outline(text).words


def run(*arguments):
    done = CliRunner().invoke(report, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_files_and_folders(tmp_path):
    inside = tmp_path / "runs" / "a"
    inside.mkdir(parents=True)
    (inside / "result.json").write_bytes(encode(fakes.saving()))
    (inside / "other.json").write_text("{}")
    (tmp_path / "b.json").write_bytes(encode(fakes.worse()))
    target = tmp_path / "page.html"
    run(tmp_path / "runs", tmp_path / "b.json", "--out", target)
    text = target.read_text()
    assert "gitdiff-small (a)" in text
    assert "gitdiff-small (b)" in text
    figures = sorted(path.name for path in (tmp_path / "page-figures" / "2").iterdir())
    assert {"misses.svg", "misses.png", "price.svg", "time.png"} <= set(figures)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.json", None, "No such file"),
        ("broken.json", b"{", "not a pagewalk.result/1"),
        ("other.json", b'{"schema": "pagewalk.machine/1"}', "not a pagewalk.result/1"),
        ("empty.json", b"", "not a pagewalk.result/1"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, name, content, message):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=message):
        run(file, "--out", tmp_path / "page.html")
    with pytest.raises(BadInput, match=r"no result in it|cannot be read|not a pagewalk"):
        run(tmp_path, "--out", tmp_path / "page.html")
    assert sorted(tmp_path.iterdir()) == before


MEASURE = """<!doctype html><body style="margin:0">
<iframe src="page.html" style="width:375px;height:900px"></iframe>
<iframe src="page.html" style="width:1280px;height:900px"></iframe>
<p id="out"></p><script>
onload = () => {
  const shown = (page, s) => [...page.querySelectorAll(s)].filter(x => x.getClientRects().length).length;
  document.getElementById("out").textContent = [...document.querySelectorAll("iframe")].map(f => {
    const page = f.contentDocument;
    return `${page.documentElement.scrollWidth} ${shown(page, "svg.wide")} ${shown(page, "svg.narrow")}`;
  }).join(" ");
}</script></body>"""


@needs_chromium
def test_nothing_sticks_out(pages, tmp_path):
    """On a phone too, the page is as wide as the window, and the picture is the one for that width."""
    (tmp_path / "frame.html").write_text(MEASURE)
    for name in ("saving", "many callers", "machines", "several", "huge"):
        (tmp_path / "page.html").write_text(pages[name])
        text = dom(f"file://{tmp_path}/frame.html", "--allow-file-access-from-files")
        seen = re.search(r'<p id="out">([\d ]+)</p>', text)
        assert seen, name
        phone, phone_wide, phone_narrow, desk, desk_wide, desk_narrow = map(int, seen[1].split())
        assert (phone, desk) == (375, 1280), name
        assert phone_wide == desk_narrow == 0 < phone_narrow == desk_wide, name


@needs_chromium
def test_it_is_drawn_in_both_hues_and_prints(pages, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(pages["saving"])
    picture = Image.open(screenshot(f"file://{file}", tmp_path / "page.png", 1280, 1600)).convert("RGB")
    colours = {colour: count for count, colour in picture.getcolors(1 << 24)}
    assert colours.get((0xD9, 0x77, 0x2B), 0) > 1000, "base is drawn"
    assert colours.get((0x1F, 0x5F, 0x9E), 0) > 1000, "pmd is drawn"
    printed = pdf(f"file://{file}", tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000


def test_every_comparison_has_its_verdict(pages):
    words = Outline(pages["machines"]).words
    assert len(comparisons(fakes.several_machines(3))) == 3
    assert words.count("of the walk cycles on") >= 3


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_words_can_be_read_on_every_ground(pages):
    """WCAG 2 AA: 4.5 for words, 3 for what is drawn; in the light, the dark and the printed theme."""
    css = pages["saving"].partition("</style>")[0]
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in css.split(":root {")[1:]]
    assert len(themes) == 3
    for theme in themes:
        full = {
            name: colour if len(colour) == 7 else "#" + "".join(part * 2 for part in colour[1:])
            for name, colour in theme.items()
        }
        for ground in (full["paper"], full["wash"]):
            for ink in ("ink", "quiet", "pmd", "base-ink", "good", "bad"):
                assert contrast(full[ink], ground) >= 4.5, (ink, ground)
        for drawn in ("base", "pmd", "other"):
            assert contrast(full[drawn], full["paper"]) >= 3, drawn


def test_words_in_a_figure_are_in_the_ink_of_their_hue(pages):
    """The hue of base is for bars; its words are darker."""
    words = re.findall(r"<text[^>]*>", pages["saving"])
    assert any("var(--base-ink)" in one for one in words)
    assert not any("var(--base)" in one for one in words)
