"""The planner against real snapshots: statements worked out by hand from the kernel's rules."""

import io
import json
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import fakes
from browser import needs_chromium, screenshot
from outline import Outline, check_heard, check_whole
from pagewalk.cli.studies.plan import plan as command
from pagewalk.errors import BadInput
from pagewalk.replay.result import encode as encode_result
from pagewalk.report.pages.plan import fleet_page, plan_page
from pagewalk.report.studies.plan import fleet_row, show_fleet, text
from pagewalk.study.planning.fleet import plan_fleet
from pagewalk.study.planning.gain import random_access
from pagewalk.study.planning.plan import plan
from pagewalk.study.planning.snapshot import Files, files_of, take
from places import TEST_DATA

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DATA = TEST_DATA / "kernel"
SAMPLE = Files(
    vmallocinfo=DATA / "vmallocinfo-6.18-x86_64-hashed.txt",
    meminfo=DATA / "meminfo-6.18-x86_64.txt",
    buddyinfo=DATA / "buddyinfo-6.18-x86_64.txt",
    vmstat=DATA / "vmstat-6.18-x86_64.txt",
    dmesg=DATA / "dmesg-hash-tables-24GiB-1node.txt",
    events=DATA / "perf-script-vmalloc-events-6.18.txt",
)


def run(*arguments):
    done = CliRunner().invoke(command, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def planned(tmp_path, kernel="6.12", processor="textbook-setassoc", **contents):
    """A plan from files with these contents."""
    files = {}
    for name, content in contents.items():
        files[name] = tmp_path / name
        files[name].write_text(content)
    return plan(take(Files(**files), kernel=kernel, processor=processor))


def meminfo(total_kib, **more):
    lines = {"MemTotal": total_kib, "VmallocTotal": 34359738367, **more}
    return "".join(f"{name}: {value} kB\n" for name, value in lines.items())


def buddyinfo(nodes=1, large=1000):
    return "".join(f"Node {n}, zone Normal 10 5 2 1 1 1 1 1 1 0 {large}\n" for n in range(nodes))


def line(size, caller, start=0xFFFFC90000200000, kind="vmalloc", nodes="N0"):
    pages = (size - 4096) // 4096
    return (
        f"{start:#018x}-{start + size:#018x} {size:7} {caller}+0x1/0x2 pages={pages} {kind} {nodes}={pages}\n"
    )


@pytest.fixture(scope="module")
def sample():
    return plan(take(SAMPLE, kernel="6.18", processor="textbook-setassoc"))


def by_caller(found):
    return {one.caller: one for one in found.callers}


def advice(found, action):
    return [one for one in found.recommendations if one.action == action]


# The reference's samples


def test_the_callers_of_the_sample(sample):
    """Reference 7.1: the futex table is huge, the percpu chunk and BPF maps are not."""
    found = by_caller(sample)
    standings = {name: one.standing for name, one in found.items()}
    assert standings == {
        "futex_hash_allocate": "huge",
        "htab_map_alloc": "could",
        "bpf_prog_pack_alloc": "perhaps",
        "pcpu_create_chunk": "never",
    }
    futex = found["futex_hash_allocate"]
    assert (futex.bytes, futex.base_pages, futex.pmd_leaves) == (10 * MIB, 2560, 5)
    assert futex.just_above == [10 * MIB], "it asked for 8 MiB and 64 bytes"
    assert futex.waste_low <= 10 * MIB - 8 * MIB - 64 - (4 * KIB - 64) <= futex.waste_high
    maps = found["htab_map_alloc"]
    sizes = [2105344 - 4096, 2367488 - 4096, 2629632 - 4096]
    assert maps.bytes == sum(sizes)
    assert maps.waste_low == maps.waste_high == 3 * 4 * MIB - sum(sizes), "each would take two leaves"


def test_the_memory_of_the_sample(sample):
    """By hand from the files: 7 + 1504 + 3784 blocks; 28672 kB of base pages are 14 tables' worth."""
    assert sample.blocks.free == {"0": 7 + (2 + 2 * 751) + (536 + 2 * 1624)}
    direct = sample.direct_map
    assert direct.bytes_by_leaf == {"4K": 28672 * KIB, "2M": 2068480 * KIB, "1G": 25165824 * KIB}
    assert direct.leaves == 7168 + 1010 + 24
    assert direct.page_tables == 14 * 4 * KIB
    assert direct.splits["direct_map_level2_splits"] == 4


def test_the_events_of_the_sample(sample):
    """Reference 7.2: 10 huge allocations, none fell back, two purges."""
    churn = sample.churn
    assert (churn.large, churn.fallbacks, churn.purges) == (10, 0, 2)


def test_the_hash_tables_of_the_sample(sample):
    """Reference 5.1: on one node all lie in the direct map, and huge vmalloc changes nothing for them."""
    assert {table.place for table in sample.tables} == {"linear", ""}
    assert sample.tables[0].name == "Dentry cache"
    assert (sample.tables[0].bytes, sample.tables[0].parameter) == (32 * MIB, "dhash_entries")
    (left,) = [one for one in sample.recommendations if one.subject == "boot hash tables"]
    assert left.action == "leave"
    assert "one node" in left.why


def test_what_the_sample_should_do(sample):
    (resize,) = advice(sample, "resize")
    assert resize.subject == "futex_hash_allocate"
    assert resize.saved_bytes == 2 * MIB - 4 * KIB
    assert sample.recommendations[0] == resize
    said = text(sample)
    assert "futex_hash_allocate: keep its requests at a power of two" in said
    assert all(len(one) <= 80 for one in said.splitlines())
    assert "no real addresses" in said.replace("\n", " ")


# A recorded kernel: what the plan says of its areas is what its page tables say


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = Path(str(resources.files("pagewalk.trace.sample"))) / "gitdiff"
    regions = json.loads((folder / "regions.json").read_text())
    file = tmp_path_factory.mktemp("recorded") / "vmallocinfo"
    lines = []
    for one in regions:
        if one["kind"] == "vmalloc" and one["pages"]:
            nodes = " ".join(f"{node}={pages}" for node, pages in one["nodes"].items())
            module = f" [{one['module']}]" if one["module"] else ""
            lines.append(
                f"{one['start']}-{one['end']} {one['bytes']:7} {one['caller']}{module} "
                f"pages={one['pages']} vmalloc {nodes}"
            )
    file.write_text("\n".join(lines) + "\n")
    large = [one for one in regions if one["pages"] and one["bytes"] - 4096 >= 2 * MIB]
    return file, folder, large


def test_a_recorded_kernel_is_told_right(recorded):
    """Linux 6.1, two nodes: large hash tables and nf_conntrack's have 2 MiB leaves, 2 MiB tables have not."""
    file, folder, large = recorded
    found = plan(
        take(
            Files(vmallocinfo=file, meminfo=folder / "meminfo.txt", buddyinfo=folder / "buddyinfo.txt"),
            kernel="6.1",
            processor="textbook-setassoc",
        )
    )
    assert found.nodes == 2
    huge = sum(one["bytes"] - 4096 for one in large if one["mapping"] == "2M")
    base = sum(one["bytes"] - 4096 for one in large if one["mapping"] == "4K")
    assert huge > 100 * MIB > base > 0
    assert sum(one.bytes for one in found.callers if one.standing == "huge") == huge
    assert sum(one.bytes for one in found.callers if one.standing in ("refused", "never")) == base
    (refused,) = [one for one in found.callers if one.standing == "refused"]
    assert refused.caller == "alloc_large_system_hash"
    assert "1048576 bytes for each of 2 nodes" in refused.why
    assert refused.bytes_by_node == {"0": refused.bytes // 2, "1": refused.bytes // 2}
    (upgrade,) = [one for one in advice(found, "upgrade") if one.subject == "alloc_large_system_hash"]
    assert "6.13" in upgrade.what


# Rules


@pytest.mark.parametrize(
    ("kernel", "later"),
    [
        ("6.1", {"TCP bind", "IP idents", "Mount-cache", "Mountpoint-cache", "UDP", "UDP-Lite"}),
        ("6.13", set()),
    ],
)
def test_tables_that_a_later_kernel_maps_huge(tmp_path, kernel, later):
    """Reference 5.3, two nodes, 512 GiB: these have 2 MiB (UDP in 6.1 too), of which 6.1 counts half."""
    found = planned(tmp_path, kernel, meminfo=meminfo(511 * MIB), buddyinfo=buddyinfo(2))
    tables = {table.name: table for table in found.tables}
    assert {name for name, table in tables.items() if table.since} == later
    assert {tables[name].since for name in later} <= {"6.13"}
    assert tables["Dentry cache"].bytes == 128 * MIB
    assert tables["Dentry cache"].place == "vmalloc hugepage"
    assert bool([one for one in advice(found, "upgrade") if one.subject == "boot hash tables"]) == bool(later)
    assert any("formula" in note for note in found.assumptions)


def test_booted_without_huge_vmalloc(tmp_path):
    found = planned(
        tmp_path,
        vmallocinfo=line(64 * MIB + 4096, "alloc_large_system_hash"),
        cmdline="quiet nohugevmalloc\n",
        buddyinfo=buddyinfo(),
    )
    (boot,) = advice(found, "boot")
    assert boot.what == "Boot without nohugevmalloc"
    assert boot.saved_bytes == 32 * 4 * KIB, "a page of PTEs for each of 32 leaves"
    assert by_caller(found)["alloc_large_system_hash"].standing == "refused"


def test_an_attempt_that_fell_back(tmp_path):
    found = planned(tmp_path, vmallocinfo=line(5 * MIB + 4096, "alloc_fdtable"), buddyinfo=buddyinfo())
    assert by_caller(found)["alloc_fdtable"].standing == "refused"
    moved = planned(
        tmp_path,
        vmallocinfo=line(4 * MIB + 4096, "alloc_fdtable", start=0xFFFFC90000201000),
        buddyinfo=buddyinfo(),
    )
    assert "no multiple of a PMD" in by_caller(moved)["alloc_fdtable"].why


def test_fragmented_memory_is_said(tmp_path):
    area = line(64 * MIB + 4096, "alloc_fdtable")
    short = planned(tmp_path, vmallocinfo=area, buddyinfo=buddyinfo(large=3))
    (watch,) = advice(short, "watch")
    assert "6 free blocks of order 9" in watch.why, "three blocks of order 10"
    assert not advice(planned(tmp_path, vmallocinfo=area, buddyinfo=buddyinfo()), "watch")
    crumbs = "Node 0, zone Normal 1000000 0 0 0 0 0 0 0 0 0 20\n"
    (watch,) = advice(planned(tmp_path, vmallocinfo=area, buddyinfo=crumbs), "watch")
    assert "98 % of free memory" in watch.why


def test_a_direct_map_in_pieces(tmp_path):
    """Reference M8: 2048 BPF programs on 5.17 leave 1,654,620 kB of an 8 GiB machine in base pages."""
    split = meminfo(8 * MIB, DirectMap4k=1654620, DirectMap2M=4636836, DirectMap1G=2097152)
    old = planned(tmp_path, "5.17", meminfo=split)
    (upgrade,) = [one for one in advice(old, "upgrade") if one.subject == "direct map"]
    assert "5.18 packs BPF programs" in upgrade.why
    assert old.direct_map.page_tables == -(-1654620 // 2048) * 4 * KIB
    assert upgrade.saved_cycles > 0
    new = planned(tmp_path, "7.3", meminfo=split)
    assert [one.subject for one in advice(new, "watch")] == ["direct map"]


def test_callers_by_what_they_could(tmp_path):
    areas = [
        line(32 * MIB + 4096 + 8192, "htab_map_alloc"),
        line(3 * MIB + 4096, "my_driver_init"),
        line(4 * MIB + 4096, "my_other_init"),
        line(2 * MIB + 4096, "pcpu_create_chunk"),
        line(64 * KIB + 4096, "kernel_clone"),
        line(8 * MIB, "acpi_os_map_iomem", kind="ioremap"),
    ]
    found = planned(tmp_path, "6.12", vmallocinfo="".join(areas), buddyinfo=buddyinfo())
    assert {name: one.standing for name, one in by_caller(found).items()} == {
        "htab_map_alloc": "could",
        "my_driver_init": "vet",
        "my_other_init": "perhaps",
        "pcpu_create_chunk": "never",
    }
    assert (found.small.below_a_pmd, found.small.other_kinds) == (1, 1)
    (convert,) = advice(found, "convert")
    assert convert.subject == "htab_map_alloc"
    assert convert.saved_cycles > 0
    assert convert.saved_bytes == 17 * 4 * KIB - (2 * MIB - 8192)
    assert [one.subject for one in advice(found, "leave") if one.subject == "my_driver_init"]


def test_no_huge_vmalloc_on_this_kernel(tmp_path):
    found = planned(tmp_path, "5.10", vmallocinfo=line(64 * MIB + 4096, "alloc_large_system_hash"))
    assert "5.10 has no huge vmalloc" in by_caller(found)["alloc_large_system_hash"].why


def test_arm64_is_told_by_its_files(tmp_path):
    cpuinfo = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
    total = (0xFFFF_FDFF_BF80_0000 - 0xFFFF_8000_8000_0000) >> 10
    files = {"meminfo": f"MemTotal: 16000000 kB\nVmallocTotal: {total} kB\n", "cpuinfo": cpuinfo}
    found = planned(tmp_path, "6.16", processor="", **files)
    assert found.architecture == "arm64-4k"
    assert found.processor.startswith("arm-")
    assert any("stands in" in note for note in found.assumptions)


# Gains


def test_random_access_follows_the_closed_form():
    """N pages, E entries: 1 - E/N of all accesses walk, 4 reads of 100 cycles each; 32 leaves fit."""
    (gain,) = random_access([64 * MIB], "textbook-fullassoc", 1e6).values()
    assert gain.base == pytest.approx((1 - 2048 / 16384) * 400, rel=0.03)
    assert gain.pmd == 0
    (small,) = random_access([2 * MIB], "textbook-fullassoc", 1e6).values()
    assert small.base == small.pmd == 0, "512 pages fit"


def test_the_rate_scales_the_share_of_a_cpu():
    one, ten = (
        random_access([64 * MIB], "intel-skylake-sp", rate)[64 * MIB].cpu_share for rate in (1e6, 1e7)
    )
    assert ten == pytest.approx(10 * one, rel=1e-3)
    assert one > 0


def test_a_recording_counts_more_than_an_assumption(tmp_path):
    recording = tmp_path / "result.json"
    recording.write_bytes(encode_result(fakes.saving()))
    area = tmp_path / "vmallocinfo"
    area.write_text(line(64 * MIB + 4096, "alloc_large_system_hash"))
    target = tmp_path / "plan.json"
    run(
        "--vmallocinfo",
        area,
        "--kernel",
        "6.12",
        "--recorded",
        recording,
        "--json",
        target,
        "-m",
        "textbook-setassoc",
    )
    gain = json.loads(target.read_text())["gains"]["alloc_large_system_hash"]
    assert gain["basis"] == "recorded"
    assert gain["base"] == pytest.approx(0.36), "720,000 of 1,440,000 cycles on 2,000,000 accesses"


# Input and output


def test_this_machine():
    """Whatever it is, it is planned, and what could not be read is said."""
    if not Path("/proc/meminfo").exists():
        pytest.skip("no /proc")
    found = json.loads(run("--json", "-"))
    assert found["schema"] == "pagewalk.plan/1"
    assert found["memory_bytes"] > 0
    assert found["recommendations"] or found["assumptions"]


@pytest.fixture
def fleet_folder(tmp_path):
    for name, large in (("db1", 1000), ("db2", 2)):
        folder = tmp_path / "fleet" / name
        folder.mkdir(parents=True)
        (folder / "vmallocinfo.txt").write_text(line(64 * MIB + 4096, "alloc_fdtable"))
        (folder / "meminfo").write_text(meminfo(16 * MIB, DirectMap4k=100000, DirectMap2M=16000000))
        (folder / "buddyinfo").write_text(buddyinfo(large=large))
        (folder / "version").write_text("Linux version 6.12.107-amd64 (x@y)\n")
    return tmp_path / "fleet"


def test_a_fleet(fleet_folder, tmp_path):
    page, encoded = tmp_path / "fleet.html", tmp_path / "fleet.json"
    said = run("--fleet", fleet_folder, "-m", "textbook-setassoc", "--out", page, "--json", encoded)
    assert "Change nothing, but watch free memory." in said.split("db2:")[1]
    plans = json.loads(encoded.read_text())["plans"]
    assert [one["host"] for one in plans] == ["db1", "db2"]
    assert {one["kernel"] for one in plans} == {"6.12"}
    content = page.read_text()
    check_whole(content)
    check_heard(content)
    assert "128 MiB have or may have PMD leaves" in Outline(content).words


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_nothing_is_cut_off_at_any_width(fleet_folder, sample, columns):
    """The machine's name neither; a table that is wider than the terminal becomes sentences."""
    name = "a-very-long-host-name-of-a-rack-17"
    (fleet_folder / "db1").rename(fleet_folder / name)
    fleet = plan_fleet(fleet_folder, processor="textbook-setassoc")
    console = Console(file=io.StringIO(), width=columns)
    show_fleet(fleet, console)
    said = console.file.getvalue()
    assert name in said and "\u2026" not in said
    for cell in fleet_row(fleet.plans[0]):
        assert cell in said
    assert "\u2026" not in text(sample, columns)


def test_areas_that_nobody_tells_of_are_unknown_not_none(fleet_folder, tmp_path):
    """Of a machine without vmallocinfo; one whose vmallocinfo has no large area has 0 bytes of them."""
    (fleet_folder / "db1" / "vmallocinfo.txt").unlink()
    (fleet_folder / "db2" / "vmallocinfo.txt").write_text(line(8192, "alloc_fdtable"))
    page, encoded = tmp_path / "fleet.html", tmp_path / "fleet.json"
    run("--fleet", fleet_folder, "-m", "textbook-setassoc", "--out", page, "--json", encoded)
    first, second = json.loads(encoded.read_text())["plans"]
    assert (first["callers"], first["small"]) == (None, None)
    assert (second["callers"], second["small"]["below_a_pmd"]) == ([], 1)
    rows = [fleet_row(plan)[3:5] for plan in plan_fleet(fleet_folder, processor="textbook-setassoc").plans]
    assert rows == [["?", "?"], ["0 B", "0 B"]]
    assert "Without 1 whose vmallocinfo is missing." in Outline(page.read_text()).words


def test_pages_are_whole(sample, fleet_folder):
    for content in (
        plan_page(sample),
        fleet_page(plan_fleet(fleet_folder, processor="textbook-setassoc")),
    ):
        check_whole(content)
        check_heard(content)
    assert plan_page(sample) == plan_page(sample)


@needs_chromium
def test_the_page_is_drawn(sample, tmp_path):
    file = tmp_path / "plan.html"
    file.write_text(plan_page(sample))
    assert screenshot(f"file://{file}", tmp_path / "plan.png", 1280, 1200).stat().st_size > 50_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vmallocinfo", "nowhere"], "No such file"),
        (["--meminfo", "{file}"], "no line of /proc/meminfo"),
        (["--buddyinfo", "{file}"], "no line of /proc/buddyinfo"),
        (["--vmstat", "{file}"], "no line of /proc/vmstat"),
        (["--dmesg", "{file}"], "no boot log"),
        (["--events", "{file}"], "no vmalloc events"),
        (["--cpuinfo", "{file}"], "no CPU in it"),
        (["--fleet", "{file}"], "folder of folders"),
        (["--fleet", "{empty}"], "no folder in it"),
        (["--fleet", "{hollow}"], "no vmallocinfo or meminfo"),
        (["--fleet", "{empty}", "--meminfo", "{file}"], "takes no other file"),
        (["--meminfo", "{meminfo}"], "--kernel: no file tells"),
        (["--meminfo", "{meminfo}", "--kernel", "nonsense"], "not a kernel release"),
        (["--meminfo", "{meminfo}", "--kernel", "6.12", "-m", "nonsense"], "nonsense"),
        (["--meminfo", "{meminfo}", "--kernel", "6.12", "--recorded", "{file}"], "not a pagewalk.result/1"),
    ],
)
def test_bad_input_is_told(tmp_path, options, message):
    places = {name: tmp_path / name for name in ("file", "empty", "hollow", "meminfo")}
    places["file"].write_text("nothing of the kind\n")
    places["meminfo"].write_text(meminfo(1000))
    places["empty"].mkdir()
    (places["hollow"] / "inside").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=message):
        run(*(option.format(**places) for option in options), "--json", tmp_path / "out.json")
    assert sorted(tmp_path.rglob("*")) == before


def test_two_files_of_one_kind(tmp_path):
    for name in ("meminfo", "meminfo.txt"):
        (tmp_path / name).write_text(meminfo(1000))
    with pytest.raises(BadInput, match="meminfo is meminfo too"):
        files_of(tmp_path)
