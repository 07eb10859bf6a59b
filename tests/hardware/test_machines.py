"""Presets against the contract and the reference; machine files, what they may leave out, and the command."""

import json
import os
import re
import subprocess
import sys
import tomllib

import msgspec
import pytest

from pagewalk.errors import BadInput
from pagewalk.hardware.check import GEOMETRIES, LIMITS
from pagewalk.hardware.figures import figures
from pagewalk.hardware.load import NOT_MODELLED, PRESETS, load, names, read, sources
from pagewalk.hardware.machine import SIZES, TABLES, Machine, tables
from pagewalk.report.catalogue.machines import cited
from places import OUTSIDE, REPOSITORY

REFERENCE = OUTSIDE / "reference" / "cpu-tlb.toml"
KIB = 1024


def named(machine, name):
    return next(t for t in (*machine.tlb, *machine.cache, *machine.psc) if t.name == name)


# --- presets against the contract and the reference --------------------------------------------------------


def test_textbook_machines_are_those_of_the_contract():
    """design.md, section 6."""
    everything = {"holds": [], "serves": ["load", "store", "fetch"]}
    everything |= {"index": "modulo", "policy": "lru", "coalesce": 1}
    for name, first, second, pscs in (
        ("textbook-setassoc", (64, 4), (1536, 12), [(2, 32, 4), (3, 4, 0), (4, 2, 0)]),
        ("textbook-fullassoc", (64, 0), (2048, 8), []),
    ):
        machine = load(name)
        assert [(tlb.level, (tlb.entries, tlb.ways)) for tlb in machine.tlb] == [(1, first), (2, second)]
        for tlb in machine.tlb:
            assert {key: getattr(tlb, key) for key in everything} == everything
        assert [(p.level, p.entries, p.ways) for p in machine.psc] == pscs
        assert all(psc.policy == "lru" for psc in machine.psc)
        assert (machine.geometry, machine.cache, machine.guest, machine.choose) == ("x86-64", [], None, "")
        assert machine.inclusion == "none"


TLBS = {
    "intel-skylake-sp": {
        "L1 ITLB 4K": "l1_itlb_4k",
        "L1 ITLB 2M": "l1_itlb_2m",
        "L1 DTLB 4K": "l1_dtlb_4k",
        "L1 DTLB 2M": "l1_dtlb_2m",
        "L1 DTLB 1G": "l1_dtlb_1g",
        "STLB": "l2_stlb_4k_2m",
        "STLB 1G": "l2_stlb_1g",
    },
    **{
        name: {
            "L1 ITLB 4K": "l1_itlb_4k",
            "L1 ITLB 2M": "l1_itlb_2m",
            "L1 load DTLB 4K": "l1_dtlb_4k",
            "L1 load DTLB 2M": "l1_dtlb_2m",
            "L1 load DTLB 1G": "l1_dtlb_1g",
            "L1 store DTLB": "l1_store_dtlb",
            "STLB 4K+2M": "l2_stlb_4k_2m",
            "STLB 4K+1G": "l2_stlb_4k_1g",
        }
        for name in ("intel-ice-lake-sp", "intel-sapphire-rapids", "intel-granite-rapids")
    },
    "intel-gracemont": {
        "L1 ITLB": "l1_itlb",
        "L1 DTLB": "l1_dtlb",
        "STLB": "l2_tlb_4k_2m",
        "STLB 1G": "l2_tlb_1g",
    },
    "amd-zen2-rome": {
        "L1 ITLB": "l1_itlb",
        "L1 DTLB": "l1_dtlb",
        "L2 ITLB": "l2_itlb",
        "L2 DTLB": "l2_dtlb_4k",
    },
    **{
        name: {
            "L1 ITLB": "l1_itlb",
            "L1 DTLB": "l1_dtlb",
            "L2 ITLB": "l2_itlb",
            "L2 DTLB": "l2_dtlb_4k",
            "L2 DTLB 1G": "l2_dtlb_1g",
        }
        for name in ("amd-zen3-milan", "amd-zen4-genoa", "amd-zen5-turin")
    },
    **{
        name: {"L1 ITLB": "l1_itlb", "L1 DTLB": "l1_dtlb", "L2 TLB": "l2_tlb"}
        for name in ("arm-neoverse-n1", "arm-neoverse-v1", "arm-neoverse-v2", "apple-m1-firestorm")
    },
    "ibm-power9": {"I-ERAT": "l1_ierat", "D-ERAT": "l1_derat", "TLB": "l2_tlb_radix_mode"},
    "ibm-power10": {"I-ERAT": "l1_erat", "D-ERAT": "l1_erat", "TLB": "l2_tlb"},
    "riscv-sifive-p550": {"L1 ITLB": "l1_itlb", "L1 DTLB": "l1_dtlb", "L2 TLB": "l2_tlb"},
}
"""Preset -> array -> key of the reference."""

HIT = ("l2_stlb_hit_cycles", "l2_dtlb_hit_cycles", "l2_tlb_hit_cycles", "erat_miss_tlb_hit_cycles")
REPLACEMENT = ("l2_stlb_replacement", "l2_dtlb_replacement", "l2_tlb_replacement")


@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.exists():
        pytest.skip("the reference of processors is not here")
    return tomllib.loads(REFERENCE.read_text())["cpu"]


def known(entry, *keys):
    """First of the keys that a table of the reference gives a number for."""
    found = entry if isinstance(entry, dict) else {}
    return next((found[key] for key in keys if isinstance(found.get(key), int | float)), None)


def given_or_assumed(table, field, figure):
    """Whether a field is what the reference says, or is called assumed where that says nothing."""
    return field in table.assumed if figure is None else getattr(table, field) == figure


def test_every_processor_of_the_reference_has_a_preset_or_a_reason(reference):
    presets = {name.replace("_", "-") for name in reference}
    assert presets == set(TLBS) | set(NOT_MODELLED)
    assert presets - set(NOT_MODELLED) <= set(names())


@pytest.mark.parametrize("preset", TLBS)
def test_tlbs_are_those_of_the_reference(preset, reference):
    facts, machine = reference[preset.replace("-", "_")], load(preset)
    assert {tlb.name for tlb in machine.tlb} == set(TLBS[preset])
    for name, key in TLBS[preset].items():
        tlb, fact = named(machine, name), facts[key] if isinstance(facts[key], dict) else {}
        ways = 0 if str(fact.get("ways")).startswith("full") else known(fact, "ways", "ways_4k")
        assert given_or_assumed(tlb, "entries", known(fact, "entries")), name
        assert given_or_assumed(tlb, "ways", ways), name
        assert tlb.entries // (tlb.ways or 1) == known(fact, "sets") or "sets" not in fact, name
        if sizes := re.findall(r"\d+[KMG]", fact.get("page_sizes", "")):
            assert set(tlb.holds) == set(sizes) - {"4M"}, name


@pytest.mark.parametrize("preset", TLBS)
def test_hit_cycles_are_the_references_or_assumed(preset, reference):
    facts, machine = reference[preset.replace("-", "_")], load(preset)
    fact = next((facts[key] for key in HIT if key in facts), "unknown")
    cycles = known(fact, "added", "measured", "added_low", "cycles", "approx")
    for tlb in machine.tlb:
        if tlb.level == 2 and "hit_cycles" not in tlb.assumed:
            assert tlb.hit_cycles == cycles
        if tlb.level == 2 and cycles is None:
            assert "hit_cycles" in tlb.assumed
    replacement = next((facts[key] for key in REPLACEMENT if key in facts), "unknown")
    for tlb in machine.tlb:
        if tlb.level == 2 and replacement == "unknown":
            assert "policy" in tlb.assumed


@pytest.mark.parametrize("preset", TLBS)
def test_caches_and_walkers_are_those_of_the_reference(preset, reference):
    facts, machine = reference[preset.replace("-", "_")], load(preset)
    for cache, key in zip(machine.cache, ("l1d", "l2", "l3"), strict=False):
        fact = facts.get(key)
        kib = known(fact, "kib", "kib_per_ccx", "kib_shared_by_4", "kib_per_core_pair")
        mib = known(fact, "mib_local_per_core", "cluster_mib_max", "pool_mib_snc3")
        if kib or mib:
            assert cache.size_bytes == (kib or mib * KIB) * KIB
        elif part := known(fact, "kib_per_slice", "kib_per_core"):
            assert cache.size_bytes % (part * KIB) == 0
        assert given_or_assumed(cache, "ways", known(fact, "ways"))
        assert cache.line_bytes == known(fact, "line") or "line" not in fact
        cycles = known(fact, "latency", "latency_cycles", "latency_cycles_3p8ghz")
        cycles = cycles or known(fact, "latency_graviton4_2m", "latency_high")
        assert (
            "latency_cycles" in cache.assumed if cycles is None else abs(cache.latency_cycles - cycles) <= 0.5
        )
    walkers = known(facts.get("page_walkers"), "count")
    assert given_or_assumed(machine.walker, "count", walkers)
    memory = known(
        facts.get("dram_ns"), "ns", "local", "local_snc3", "epyc_7763", "ryzen_7950x_ddr5_6000"
    ) or known(facts.get("dram_ns"), "epyc_9355p_nps1_ddr5_5200", "graviton3")
    nanoseconds = memory or 100
    assert machine.memory.latency_cycles == round(nanoseconds * machine.clock_ghz)
    assert "latency_cycles" in machine.memory.assumed
    assert (memory is None) == machine.memory.assumed["latency_cycles"].startswith("ours")


def test_walk_caches_are_published_for_power9_alone(reference):
    """Reference, section 7; Zen's PDEs lie in an array of the L2 DTLB's size."""
    caches = reference["ibm_power9"]["page_walk_caches"]
    assert [psc.entries for psc in load("ibm-power9").psc] == [caches["entries_each"]] * caches["levels"]
    for preset in set(TLBS) - {"ibm-power9"}:
        assert all("entries" in psc.assumed for psc in load(preset).psc), preset


# --- presets as files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_every_figure_of_a_preset_has_a_source_or_a_reason(name):
    machine = load(name)
    for key, table in tables(machine):
        for figure in figures(table):
            assert figure.assumed != "no source given", f"{key} {figure.name}"
        if table.source:
            cites = re.match(r"[\w-]+(?=: )", table.source)
            assert cites, f"{key}: {table.source}"
            assert cites[0] in sources(), key
            assert table.confidence != "assumed", key
        assert all(why.strip() for why in table.assumed.values())


def test_every_source_is_used():
    used = {name for preset in names() for name in cited(load(preset), sources())}
    assert used == set(sources())


@pytest.mark.parametrize("name", names())
def test_identity_is_of_the_content(name):
    machine = load(name)
    assert (machine.id, len(machine.sha256)) == (name, 64)
    assert read(PRESETS / f"{name}.toml") == machine


def test_different_machines_have_different_identities(tmp_path):
    assert len({load(name).sha256 for name in names()}) == len(names())
    same, other = tmp_path / "same.toml", tmp_path / "other.toml"
    same.write_bytes((PRESETS / "textbook-setassoc.toml").read_bytes() + b"\n# a comment\n")
    other.write_bytes((PRESETS / "textbook-setassoc.toml").read_bytes().replace(b"= 1536", b"= 3072"))
    assert read(same).sha256 == load("textbook-setassoc").sha256
    assert read(other).sha256 != load("textbook-setassoc").sha256


def test_known_geometries_are_linux_geometries():
    linux = pytest.importorskip("pagewalk.linux.geometry")
    known_there = {name: linux.geometry(name) for name in GEOMETRIES}
    sizes = {f"{1 << (g.base_shift - 10)}K": g.base_shift for g in known_there.values()}
    assert all(SIZES[name] == shift for name, shift in sizes.items())
    assert {name: (f"{1 << (g.base_shift - 10)}K", g.levels) for name, g in known_there.items()} == GEOMETRIES


def test_every_number_has_limits():
    for struct in (*TABLES.values(), Machine):
        numbers = {
            field.name
            for field in msgspec.inspect.type_info(struct).fields
            if isinstance(field.type, msgspec.inspect.IntType)
        }
        assert numbers == set(LIMITS.get(struct, ())), struct


# --- extends -----------------------------------------------------------------------------------------------


def extended(tmp_path, text, preset="intel-skylake-sp"):
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "{preset}"\n{text}')
    return read(file)


def test_a_file_may_say_only_what_differs(tmp_path):
    base = load("intel-skylake-sp")
    mine = extended(
        tmp_path,
        'clock_ghz = 2.06\ngeometry = "x86-64-5level"\n'
        '[memory]\nlatency_cycles = 200\nsource = "my chase"\n'
        '[[tlb]]\nname = "STLB"\nentries = 768\nways = 6\npolicy = "lru"\n'
        '[[psc]]\nname = "PML5E cache"\nlevel = 5\nentries = 1\n'
        '[walker]\nenters = "L2"\n',
    )
    stlb, was = named(mine, "STLB"), named(base, "STLB")
    assert (stlb.entries, stlb.ways, stlb.index, stlb.source) == (768, 6, was.index, was.source)
    assert set(stlb.assumed) - set(was.assumed) == {"entries", "ways", "policy"}
    assert [tlb.name for tlb in mine.tlb] == [tlb.name for tlb in base.tlb]
    assert [psc.name for psc in mine.psc] == [*(psc.name for psc in base.psc), "PML5E cache"]
    assert (mine.walker.enters, mine.walker.count) == ("L2", base.walker.count)
    assert (mine.memory.latency_cycles, mine.memory.source, mine.memory.assumed) == (200, "my chase", {})
    assert (mine.id, mine.clock_ghz, mine.cache) == ("mine", 2.06, base.cache)
    assert set(mine.assumed) == {"geometry", "clock_ghz"}
    assert mine.sha256 != base.sha256


def test_a_source_stands_before_the_presets_and_its_confidence_is_not_inherited(tmp_path):
    mine = extended(tmp_path, '[[tlb]]\nname = "STLB"\nhit_cycles = 8\nsource = "my chase"\n')
    stlb = named(mine, "STLB")
    assert stlb.source.startswith("my chase; else TLBDR:")
    assert stlb.confidence == "unverified"
    assert "hit_cycles" not in stlb.assumed


def test_the_files_of_the_documentation_are_machines(tmp_path):
    page = (REPOSITORY / "docs" / "machines.md").read_text()
    extending, whole = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "extending.toml").write_text(extending)
    (tmp_path / "whole.toml").write_text(whole)
    assert named(read(tmp_path / "extending.toml"), "STLB").ways == 6
    assert read(tmp_path / "whole.toml").geometry == "riscv-sv39"


def test_guest_presets_are_their_hosts_processor():
    for name, leaf in (("amd-zen3-milan", "4K"), ("intel-sapphire-rapids", "2M")):
        guest, native = load(f"{name}-guest"), load(name)
        assert (guest.tlb, guest.cache, guest.psc) == (native.tlb, native.cache, native.psc)
        assert guest.guest.host_leaf == leaf
        assert native.guest is None


# --- command -----------------------------------------------------------------------------------------------


def pagewalk(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pagewalk", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def test_machines_lists_every_preset_and_says_who_has_none():
    done = pagewalk("machines")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in (*names(), *NOT_MODELLED))
    assert "\x1b" not in done.stdout


def test_machines_name_shows_figures_sources_and_assumptions():
    done = pagewalk("machines", "intel-skylake-sp")
    assert done.returncode == 0
    for shown in ("VPN[6:0] ^ VPN[13:7]", "TLBDR", "* latency_cycles", "vusec/tlbdr", "1,536"):
        assert shown in done.stdout


def test_machines_json_is_the_description(tmp_path):
    done = pagewalk("machines", "amd-zen3-milan", "--json", "-")
    assert msgspec.json.decode(done.stdout, type=Machine) == load("amd-zen3-milan")
    everything = tmp_path / "all.json"
    done = pagewalk("machines", "--json", str(everything))
    assert [machine["id"] for machine in json.loads(everything.read_text())["machines"]] == names()
    assert "amd-zen3-milan" in done.stdout
    assert list(tmp_path.iterdir()) == [everything]


def test_a_bad_machine_is_one_line_and_status_2(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text('extends = "intel-skylake-sp"\n[[tlb]]\nname = "STLB"\nways = 7\n')
    out = tmp_path / "out.json"
    done = pagewalk("machines", str(bad), "--json", str(out))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{bad}: tlb[5].ways: 1536 entries" in done.stderr
    assert not out.exists()


def test_latencies_may_be_nanoseconds_of_the_files_clock(tmp_path):
    """17 ns at 2.7 GHz are 46 cycles; without a clock of its own the preset's 3 GHz count."""
    text = """extends = "intel-skylake-sp"
name = "mine"
clock_ghz = 2.7
[[cache]]
name = "L3"
latency_ns = 17
[memory]
latency_ns = 90.0
source = "mine"
"""
    mine, slow = tmp_path / "mine.toml", tmp_path / "slow.toml"
    mine.write_text(text)
    slow.write_text(text.replace("clock_ghz = 2.7\n", ""))
    machine = load(str(mine))
    assert (machine.cache[2].latency_cycles, machine.memory.latency_cycles) == (46, 243)
    assert machine.memory.assumed["latency_cycles"] == "own arithmetic: 90 ns at 2.7 GHz"
    machine = load(str(slow))
    assert (machine.cache[2].latency_cycles, machine.memory.latency_cycles) == (51, 270)


def test_another_geometry_leaves_out_walk_caches_of_levels_that_it_has_not(tmp_path):
    """Three levels with a granule of 64 KiB: the preset's cache of the fourth goes, the file's own stays."""
    coarse, own = 'geometry = "arm64-64k"\n', '[[psc]]\nname = "x"\nlevel = 4\nentries = 1\n'
    assert [psc.level for psc in extended(tmp_path, coarse, "arm-neoverse-v1").psc] == [2, 3]
    with pytest.raises(BadInput, match="above the tables' 3 levels"):
        extended(tmp_path, coarse + own, "arm-neoverse-v1")
