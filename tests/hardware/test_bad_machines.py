"""Machine files that cannot be: each is refused in one line that names file, key and mend."""

import random
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.hardware.load import PRESETS, build, load, names, read
from pagewalk.hardware.machine import Machine

WHOLE = (PRESETS / "textbook-setassoc.toml").read_text()
SKYLAKE = 'extends = "intel-skylake-sp"\n'
MINE = 'schema = "pagewalk.machine/1"\nname = "mine"\n'
STLB = SKYLAKE + '[[tlb]]\nname = "STLB"\n'
L2 = SKYLAKE + '[[cache]]\nname = "L2"\n'
HOST = '[[guest.host_psc]]\nname = "host PDE cache"\n'
SMALL = "size_bytes = 64\nways = 1\nlatency_cycles = 99\n"
PSC = SKYLAKE + '[[psc]]\nname = "PDE cache"\n'


def instead(old, new):
    assert old in WHOLE
    return WHOLE.replace(old, new, 1)


BAD = [
    # what is in the file, key that the message names, words of what and mend
    ("", "the file", "lacks schema; add schema ="),
    (instead("pagewalk.machine/1", "pagewalk.machine/9"), "schema", "give one of pagewalk.machine/1"),
    (instead('name = "Textbook, set-associative"', ""), "the file", "lacks name; add name ="),
    (instead('name = "Textbook, set-associative"', 'name = " "'), "name", "is empty"),
    (instead('name = "Textbook, set-associative"', 'name = "a\\u001b[31m"'), "name", "not printable"),
    (instead("entries = 64", ""), "tlb[0]", "lacks entries; add entries ="),
    (instead("entries = 64", "entrys = 64"), "tlb[0].entrys", "unknown key; did you mean entries?"),
    (instead("[memory]", "[memmory]"), "memmory", "unknown key; did you mean memory?"),
    (instead("entries = 64", '"\\u001b[31m" = 64'), "tlb[0].'\\x1b[31m'", "unknown key"),
    (instead("[memory]\n", "[memory]\nnanoseconds = 90\n"), "memory.nanoseconds", "latency_cycles"),
    (SKYLAKE + 'id = "x"', "id", "unknown key"),
    (SKYLAKE + 'sha256 = "x"', "sha256", "unknown key"),
    (instead("entries = 64", 'entries = "64"'), "tlb[0].entries", "give a whole number"),
    (instead("entries = 64", "entries = 64.5"), "tlb[0].entries", "give a whole number"),
    (instead("entries = 64", "entries = true"), "tlb[0].entries", "give a whole number"),
    (instead("entries = 64", "entries = [64]"), "tlb[0].entries", "give a whole number"),
    (instead("entries = 64", "entries = 2026-11-01"), "tlb[0].entries", "give a whole number"),
    (instead("entries = 64", "entries = 0"), "tlb[0].entries", "0 is out of range; give 1 to"),
    (instead("entries = 64", "entries = -64"), "tlb[0].entries", "-64 is out of range"),
    (instead("entries = 64", f"entries = {10**9}"), "tlb[0].entries", "out of range"),
    (instead("entries = 64", f"entries = {10**100}"), "tlb[0].entries", "out of range"),
    (instead("entries = 64", "entries = 9" + "9" * 9999), "", "number too long"),
    (instead("ways = 4", "ways = 5"), "tlb[0].ways", "give a divisor of the entries"),
    (instead("ways = 4", "ways = 128"), "tlb[0].ways", "give a divisor of the entries"),
    (instead("ways = 4", "ways = -1"), "tlb[0].ways", "out of range"),
    (instead("level = 1", "level = 3"), "tlb[0].level", "give one of 1, 2"),
    (instead("level = 1", "level = 2"), "tlb", "no array of level 1 serves loads"),
    (instead('serves = ["load", "store", "fetch"]', 'serves = ["loads"]'), "tlb[0].serves[0]", "load, store"),
    (instead('serves = ["load", "store", "fetch"]', "serves = []"), "tlb[0].serves", "give load, store"),
    (instead('serves = ["load", "store", "fetch"]', 'serves = ["load"]'), "tlb", "level 1 serves stores"),
    (instead("[[tlb]]", "[[psc]]"), "psc[0]", ""),
    (instead('geometry = "x86-64"', 'geometry = "x86"'), "geometry", "x86-64-5level"),
    (instead('geometry = "x86-64"', 'geometry = "riscv-sv39"'), "psc[2].level", "give 2 to 3"),
    (
        'schema = "pagewalk.machine/1"\nname = "a"\ntlb = []\n[memory]\nlatency_cycles = 1',
        "tlb",
        "serves loads",
    ),
    (
        'schema = "pagewalk.machine/1"\nname = "a"\n[tlb]\n[memory]\nlatency_cycles = 1',
        "tlb",
        "write [[tlb]]",
    ),
    (WHOLE + "\n[[tlb]]\n" * 40, "tlb[2]", "lacks name"),
    (STLB + 'policy = "plru"', "tlb[5].policy", "tree-plru"),
    (STLB + "ways = 6", "tlb[5].ways", "12 ways"),
    (STLB + 'index = "VPN[3:0]"', "tlb[5].index", "yields 4 bits, but there are 128 sets"),
    (STLB + 'index = "VPN[60:54]"', "tlb[5].index", "within bits 51 to 0"),
    (STLB + 'index = "VPN[6:0"', "tlb[5].index", "write it like"),
    (STLB + "index = \"__import__('os')\"", "tlb[5].index", "write it like"),
    (STLB + "coalesce = 3", "tlb[5].coalesce", "give 1, 2, 4, 8"),
    (STLB + 'holds = ["4K", "5K"]', "tlb[5].holds", "'5K' is no leaf size"),
    (STLB + 'holds = ["4K", "4K"]', "tlb[5].holds", "names a size twice"),
    (STLB + 'holds = ["2M"]', "tlb", "no array of level 2 holds 4K"),
    (STLB + 'holds = ["4K", "1G"]', "choose", "both hold 1G"),
    (STLB + "hit_cycles = -1", "tlb[5].hit_cycles", "out of range"),
    (STLB + 'assumed = { wayz = "?" }', "tlb[5].assumed", "'wayz'"),
    (STLB + 'assumed = "all"', "tlb[5].assumed", "give a table"),
    (STLB + 'confidence = "sure"', "tlb[5].confidence", "primary"),
    (SKYLAKE + 'choose = "VPN[7]"', "choose", "leave it out"),
    ('extends = "intel-sapphire-rapids"\nchoose = "VPN[8:7]"', "choose", "2 arrays"),
    ('extends = "intel-sapphire-rapids"\nchoose = ""', "choose", "both hold 4K"),
    (SKYLAKE + '[[tlb]]\nname = "STLB "\nlevel = 2\nentries = 8\nways = 0', "choose", "both hold"),
    (WHOLE + WHOLE[WHOLE.index("[[tlb]]") : WHOLE.index("[[psc]]")], "tlb[2].name", "is taken"),
    (PSC + "level = 1", "psc[0].level", "give 2 to 5"),
    (PSC + "level = 5", "psc[0].level", "give 2 to 4"),
    (PSC + "level = 3", "psc[1].level", "second cache of level 3"),
    (PSC + "ways = 3", "psc[0].ways", "divisor"),
    (L2 + "size_bytes = 1_000_000", "cache[1].size_bytes", "no whole number of sets"),
    (L2 + f"size_bytes = {1 << 50}", "cache[1].size_bytes", "out of range"),
    (L2 + "ways = 0", "cache[1].ways", "out of range"),
    (L2 + "line_bytes = 128", "cache[1].line_bytes", "one size"),
    (L2.replace("L2", "L1D") + "line_bytes = 96", "cache[0].line_bytes", "no power of two"),
    (L2.replace("L2", "L1D") + 'fill = "victim"', "cache[0].fill", "needs a level above"),
    (L2 + 'fill = "victim"\ninclusive = true', "cache[1].fill", "cannot be inclusive"),
    (L2 + 'fill = "all"', "cache[1].fill", "demand, victim"),
    (L2 + "latency_cycles = 2", "cache[1].latency_cycles", "less than the 4"),
    (L2 + 'policy = "mru+1%3-plru4"', "cache[1].ways", "12 ways"),
    (
        L2.replace("L2", "memory") + "size_bytes = 64\nways = 1\nlatency_cycles = 99",
        "cache[3].name",
        "is taken",
    ),
    (SKYLAKE + "[memory]\nlatency_cycles = 10", "memory.latency_cycles", "less than the 68"),
    (SKYLAKE + '[walker]\nenters = "L4"', "walker.enters", "give one of: L1D, L2, L3"),
    (SKYLAKE + '[walker]\nenters = "L3"', "walker.enters", "filled on demand"),
    (SKYLAKE + "[walker]\ncount = 0", "walker.count", "out of range"),
    (SKYLAKE + "[flush]\npage_cycles = -3", "flush.page_cycles", "out of range"),
    (SKYLAKE + "[spaces]\nslots = -3", "spaces.slots", "out of range"),
    (SKYLAKE + 'inclusion = "strict"', "inclusion", "exclusive"),
    (SKYLAKE + "[memory]\nlatency_ns = 0", "memory.latency_ns", "no time in nanoseconds"),
    (SKYLAKE + "[memory]\nlatency_ns = 90\nlatency_cycles = 270", "memory.latency_ns", "give one of them"),
    (MINE + "[memory]\nlatency_ns = 90", "memory.latency_ns", "give clock_ghz"),
    (SKYLAKE + "clock_ghz = nan", "clock_ghz", "nan is no clock"),
    (SKYLAKE + "clock_ghz = inf", "clock_ghz", "inf is no clock"),
    (SKYLAKE + "clock_ghz = -1", "clock_ghz", "no clock"),
    (SKYLAKE + "clock_ghz = 2_100", "clock_ghz", "up to 20"),
    (SKYLAKE + '[guest]\nhost_leaf = "8K"', "guest.host_leaf", "1G, 2M, 4K"),
    ('extends = "ibm-power9"\n[guest]\nhost_leaf = "4K"', "guest.host_leaf", "base page, 64K"),
    (SKYLAKE + "[guest]\nhost_levels = 9", "guest.host_levels", "out of range"),
    (SKYLAKE + '[guest]\nhost_leaf = "2M"\nwalks_in_stlb = true', "guest.walks_in_stlb", 'host_leaf = "4K"'),
    (
        SKYLAKE + 'inclusion = "exclusive"\n[guest]\nwalks_in_stlb = true',
        "guest.walks_in_stlb",
        "leave it out",
    ),
    (SKYLAKE + "[guest]\nnested_entries = 16\nnested_ways = 3", "guest.nested_ways", "divisor"),
    (SKYLAKE + "[[guest.host_psc]]\nnaem = 1", "guest.host_psc[0].naem", "did you mean name?"),
    (
        SKYLAKE + '[[guest.host_psc]]\nname = "P"\nlevel = 5\nentries = 4',
        "guest.host_psc[0].level",
        "give 2 to 4",
    ),
    ('extends = "intel-skylake"', "extends", "did you mean intel-skylake-sp?"),
    ("extends = 3", "extends", "no preset '3'"),
    ('extends = ["intel-skylake-sp"]', "extends", "no preset"),
    ("tlb = [", "", "not TOML"),
    ("a = 1\na = 2\n", "", "line 2"),
    ("a = " + "[" * 100_000, "", "nested too deeply"),
    ("# " + "x" * (1 << 20), "", "larger than 1 MiB"),
]


@pytest.mark.parametrize(("text", "key", "words"), BAD, ids=range(len(BAD)))
def test_a_bad_machine_is_refused_by_file_key_and_mend(text, key, words, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(BadInput) as refused:
        read(file)
    line = str(refused.value)
    assert line.startswith(f"{file}: {key}" if key else f"{file}: ")
    assert words in line
    assert "\n" not in line
    assert refused.value.mend


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b'name = "\xff\xfe"')
    with pytest.raises(BadInput, match="byte 8: not UTF-8"):
        read(file)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("intel-skylake", "did you mean intel-skylake-sp"),
        ("nothing like it", "see pagewalk machines"),
        ("arm-neoverse-n2", "no preset: public statements"),
        ("nowhere.toml", "cannot be read"),
        (".", "cannot be read"),
        ("a\0b", "no preset of that name"),
        ("a\0b.toml", "cannot be read"),
        ("x" * 5000, "no preset of that name"),
        ("", "cannot be read"),
    ],
)
def test_names_and_paths_that_lead_nowhere(name, words):
    with pytest.raises(BadInput, match=words):
        load(name)


def places(content, path=()):
    """Every place in a nested content: paths of keys and list positions."""
    yield path
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in inside:
        yield from places(value, (*path, key))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2, 3, 4, 12, 64, 1 << 20, 1 << 62, 1 << 63, 1 << 64, -1, 10**30])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["load", "4K", "lru", "tree-plru", "VPN[6:0]", "modulo", "victim", "riscv-sv39", "L2"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(names()), st.data())
def test_whatever_a_file_holds_it_is_a_machine_or_refused(preset, data):
    """One to three places of a preset, or of a file that extends it, hold anything at all."""
    content = tomllib.loads((PRESETS / f"{preset}.toml").read_text())
    if "extends" not in content and data.draw(st.booleans()):
        content |= {"extends": preset}
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(content))[1:]))
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and data.draw(st.booleans()):
            parent.pop(path[-1])
            break
        parent[path[-1]] = data.draw(ANYTHING)
    try:
        machine = build(content, "mine", "mine.toml")
    except BadInput as refused:
        assert str(refused).startswith("mine.toml: ")
    else:
        assert isinstance(machine, Machine)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_are_a_machine_or_refused(seed, tmp_path):
    draw = random.Random(seed)
    content = bytearray((PRESETS / f"{draw.choice(names())}.toml").read_bytes())
    for _ in range(draw.choice((1, 3, 30))):
        content[draw.randrange(len(content))] = draw.choice((draw.randrange(256), *b'"[]{}=0-9,.'))
    if draw.random() < 0.3:
        del content[draw.randrange(len(content)) :]
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    try:
        assert isinstance(read(file), Machine)
    except BadInput as refused:
        assert str(refused).startswith(str(file))
