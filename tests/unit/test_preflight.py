"""What preflight says of what it finds: each check by facts alone, and how the facts are gathered."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from images import file as opened
from luod.facts import Facts, NetworkUnits, Sources, Unit, gather
from luod.interface.update import Outcome
from luod.kernel.api import Call, KernelError
from luod.kernel.compatible import Abi
from luod.kernel.image import Image, Kind
from luod.kernel.running import NotKnown
from luod.kernel.shared import SharedKernel
from luod.lifecycle import Mode, State, Via
from luod.manifest import Session
from luod.preflight import CHECKS, all_is_lost, checks
from luod.sealed import Loaded
from luod.sim import image
from luod.sim.client import SimKernel
from luod.systemd import CantAsk

LINE = "quiet liveupdate=on kho=on"


def a_kernel(release="7.3.4", build_id="aa", page_size=4096, architecture="x86_64", **abi):
    names = {"kho": {"kho-v4"}, "luo": {"luo-v5"}, "handlers": {"memfd-v2"}} | abi
    return Image(
        kind=Kind.BZIMAGE,
        architecture=architecture,
        packing=None,
        release=release,
        build_ids=frozenset({build_id}),
        abi=Abi(**{whose: frozenset(strings) for whose, strings in names.items()}),
        command_line_max=2016,
        page_size=page_size,
    )


def a_loaded(line=LINE, **what):
    return Loaded(a_kernel(**{"release": "7.4.0", "build_id": "bb"} | what), line, 1000, 1)


def a_session(number=0, state=State.OUTGOING, mode=Mode.CUSTODIAL, name=None, unit=None, uid=1000):
    return Session(
        id=number,
        kernel_name=f"luod-0-{number}",
        uid=uid,
        gid=uid,
        name=name or f"s{number}",
        mode=mode,
        state=state,
        unit=unit,
        created_usec=1,
    )


UNIT = Unit("luod.service", 262, keeps=True, limit=8192, survives=False, changed=False)
GOOD = Facts(
    via=Via.SYSTEMD,
    device="/dev/liveupdate",
    release="7.3.4",
    running=a_kernel(),
    running_line=LINE,
    loaded=a_loaded(),
    any_is_loaded=True,
    sessions=(a_session(),),
    journal_room=1000,
    has_systemd=True,
    unit=UNIT,
    entries=20,
    most=8192,
)
DIRECT = replace(GOOD, via=Via.DIRECT, asked=frozenset({0}))
ALL = ["s0 of uid 1000"]

HANDOVER = replace(GOOD, handover=("br0", "vlan*"), network_units=NetworkUnits(sets_up=True, writes_down=True))


def unit(**changes):
    return replace(GOOD, unit=replace(UNIT, **changes))


def failed_open(number, **changes):
    return replace(GOOD, device_error=KernelError(Call.OPEN, number), **changes)


def loaded(line=LINE, facts=GOOD, **what):
    return replace(facts, loaded=a_loaded(line, **what))


UNKNOWN = replace(GOOD, running=NotKnown("its image was not found (/boot: nothing)"))
SAME = {"release": "7.3.4", "build_id": "aa"}

FINDINGS = [
    ("device", failed_open(errno.EBUSY), "another process holds /dev/liveupdate", "`fuser -v /dev/liveupdate`", ALL),
    ("device", failed_open(errno.EBUSY, holder="process 7 (x)"), "process 7 (x) holds /dev/liveupdate", "stop it", ALL),
    ("device", failed_open(errno.EIO), "can't be read by this one", "luoctl status", ALL),
    ("image", replace(GOOD, loaded=None), "others have loaded the next kernel", "luoctl load KERNEL", ALL),
    ("image", replace(GOOD, loaded=None, any_is_loaded=False), "no kernel is loaded", "luoctl load KERNEL", ALL),
    ("command-line", loaded("quiet kho=on"), "lacks liveupdate=on", "liveupdate=on kho=on", ALL),
    ("command-line", loaded("liveupdate=on kho=off"), "lacks kho=on", '"$(cat /proc/cmdline) liveupdate=on', ALL),
    ("command-line", loaded("liveupdate=on"), "doesn't say kho=on", '--cmdline "$(cat /proc/cmdline) kho=on"', ALL),
    (
        "command-line",
        loaded("liveupdate=on", replace(GOOD, running_line="single")),
        "no image tells whether it is on",
        '--cmdline "... kho=on"',
        ALL,
    ),
    ("abi", loaded(luo=()), "Linux 7.4.0 has no Live Update Orchestrator", "luoctl load KERNEL", ALL),
    ("abi", UNKNOWN, "7.3.4, hands over is not known, because its image was not found", "--running FILE", ALL),
    ("abi", loaded(kho={"kho-v5"}), "hands over as kho-v4, Linux 7.4.0 knows kho-v5: it would take nothing", "", ALL),
    ("abi", loaded(luo={"luo-v6"}), "hands over as luo-v5, Linux 7.4.0 knows luo-v6: it would panic", "luo-v5", ALL),
    ("abi", loaded(page_size=65536), "differ in size, 4096 and 65536 bytes", "luoctl load KERNEL", ALL),
    ("abi", loaded(page_size=None), "differ in size, 4096 and unknown bytes", "luoctl load KERNEL", ALL),
    ("abi", loaded(architecture="aarch64"), "it is for aarch64", "luoctl load KERNEL", ALL),
    ("handlers", UNKNOWN, "which handlers this kernel, 7.3.4, has is not known", "--running FILE", ALL),
    ("handlers", replace(GOOD, running=a_kernel(handlers=())), "its image doesn't tell", "--force", ALL),
    ("handlers", loaded(handlers={"memfd-v3"}), "lacks memfd-v2, it has memfd-v3", "one that knows memfd-v2", ALL),
    ("handlers", loaded(handlers=()), "lacks memfd-v2, it has none", "one that knows memfd-v2", ALL),
    (
        "manifest",
        replace(GOOD, unclear=["pipe, kept as ~001"]),
        "1 thing that luod doesn't",
        "--what=fdstore",
        ["pipe, "],
    ),
    ("unit", replace(DIRECT, is_simulated=True, via=Via.SYSTEMD), "has no systemd", "--via direct", None),
    ("unit", replace(GOOD, has_systemd=False), "this machine has no systemd", "--via direct", None),
    ("unit", replace(GOOD, unit=NotKnown("it is no service")), "not known, because it is no service", "install-", ALL),
    ("unit", unit(systemd=254), "systemd 254 kills luod", "--via direct", ALL),
    ("unit", unit(systemd=257), "systemd 257 carries no fd store over", "luoctl install-units", ALL),
    ("unit", unit(keeps=False), "has none that outlives it", "FileDescriptorStorePreserve=yes", ALL),
    ("unit", replace(GOOD, most=0), "has none that outlives it", "FileDescriptorStorePreserve=yes", ALL),
    ("unit", replace(DIRECT, goes_at_once=False), "doesn't know luod-kexec.service", "install-", None),
    ("fd-store", unit(limit=10), "in the next boot there may be 10", "FileDescriptorStoreMax=8192", ALL),
    ("fd-store", unit(changed=True), "isn't known, because the files of luod.service", "systemctl daemon-reload", ALL),
    (
        "incoming",
        replace(GOOD, sessions=[a_session(1, State.INCOMING, Mode.DELEGATED), a_session(2)]),
        "1 delegated session that came over",
        "finish",
        ["s1 of uid 1000"],
    ),
    (
        "stores",
        replace(DIRECT, stores={"a.service": 2}),
        "for 1 other service",
        "--via systemd",
        ["2 kept for a.service"],
    ),
    ("stores", replace(DIRECT, stores=NotKnown("systemctl is away")), "not known, because systemctl", "systemd", None),
]

DOUBTS = [
    *(
        (name, replace(GOOD, loaded=None), "not known, because luod has loaded no kernel", None)
        for name in ("command-line", "abi", "handlers")
    ),
    ("image", replace(GOOD, any_is_loaded=False), "luod loads it again before it goes", None),
    ("manifest", replace(GOOD, journal_needs=1001), "1000 bytes are free in the journal, fewer than the 1001", None),
    ("fd-store", replace(GOOD, most=0), "if luod dies before the end, all is lost", "luod supervise"),
    ("owners", replace(DIRECT, asked=frozenset()), "can be paused, for s0 of uid 1000", "--via systemd"),
    (
        "owners",
        replace(DIRECT, asked=frozenset(), sessions=[a_session(name="luod-network-a", uid=1001)]),
        "for luod-network-a of uid 1001",
        "--via systemd",
    ),
    (
        "owners",
        replace(DIRECT, asked=frozenset(), sessions=[a_session(unit="x.scope")], unpausable={"x.scope": "it is away"}),
        "x.scope can't be paused: it is away",
        "take part",
    ),
    (
        "owners",
        replace(
            DIRECT,
            asked=frozenset(),
            sessions=[a_session(state=State.CARRIED, unit="x.scope")],
            unpausable={"x.scope": "it is away"},
        ),
        "it is away; which ends the update",
        "or --unready proceed",
    ),
    (
        "network",
        replace(HANDOVER, network_units=NetworkUnits(sets_up=False, writes_down=True)),
        "luod-network.service isn't enabled: nobody sets up br0, vlan* in the next kernel",
        "systemctl enable luod-network.service",
    ),
    (
        "network",
        replace(HANDOVER, network_units=NetworkUnits(sets_up=True, writes_down=False)),
        "luod-network-snapshot.service isn't active: br0, vlan* can't be written down, which ends the update",
        "systemctl enable --now luod-network.service luod-network-snapshot.service",
    ),
    (
        "network",
        replace(HANDOVER, network_units=NotKnown("systemctl is away")),
        "whether br0, vlan* can go over is not known, because systemctl is away",
        None,
    ),
]

PASSES = [
    *((name, GOOD) for name in CHECKS),
    *((name, DIRECT) for name in CHECKS),
    ("command-line", loaded("liveupdate=on", replace(GOOD, running_line="liveupdate=on"), **SAME)),
    ("abi", loaded(page_size=None, **SAME)),
    ("abi", loaded(kho={"kho-v4", "kho-v5"}, luo={"luo-v5", "luo-v6"})),
    ("handlers", loaded(handlers={"memfd-v2", "vfio-pci-v1"})),
    ("unit", unit(systemd=257, survives=True)),
    ("unit", replace(GOOD, exitrd=True)),
    ("unit", replace(DIRECT, is_simulated=True)),
    ("unit", replace(DIRECT, unit=NotKnown("it is no service"), has_systemd=False)),
    ("fd-store", unit(limit=10, systemd=257)),
    ("fd-store", replace(unit(limit=10), via=Via.DIRECT)),
    ("incoming", replace(GOOD, sessions=[a_session(1, State.INCOMING), a_session(2, State.LOST)])),
    ("owners", replace(DIRECT, asked=frozenset(), sessions=[a_session(unit="x.service")])),
    ("owners", replace(DIRECT, asked=frozenset(), sessions=[a_session(state=State.INCOMING)])),
    ("owners", replace(DIRECT, asked=frozenset(), sessions=[a_session(name="luod-network-a", uid=os.geteuid())])),
    ("network", HANDOVER),
    ("network", replace(HANDOVER, has_systemd=False, network_units=None)),
]


def found(name, facts):
    [check] = [check for check in checks(facts) if check.name == name]
    return check


@pytest.mark.parametrize(("name", "facts", "detail", "remedy", "loses"), FINDINGS)
def test_what_may_be_lost_fails_with_a_remedy(name, facts, detail, remedy, loses):
    check = found(name, facts)
    assert check.outcome is Outcome.FAIL
    assert detail in check.detail
    assert check.remedy
    assert remedy in check.remedy
    assert (check.loses is None) == (loses is None)
    assert all(part in line for part, line in zip(loses or (), check.loses or (), strict=True))


@pytest.mark.parametrize(("name", "facts", "detail", "remedy"), DOUBTS)
def test_what_loses_nothing_by_itself_is_a_warning(name, facts, detail, remedy):
    check = found(name, facts)
    assert check.outcome is Outcome.WARN
    assert detail in check.detail
    assert check.loses is None
    assert (check.remedy is None) if remedy is None else (remedy in check.remedy)


@pytest.mark.parametrize(("name", "facts"), PASSES)
def test_what_is_as_it_should_be_passes_and_says_what_it_is(name, facts):
    check = found(name, facts)
    assert (check.outcome, check.remedy, check.loses) == (Outcome.PASS, None, None)
    assert check.detail


def test_every_check_is_one_line_for_people():
    for facts in [facts for _, facts, *_ in (*FINDINGS, *DOUBTS, *PASSES)]:
        for check in checks(facts):
            for text in (check.detail, check.remedy, *(check.loses or ())):
                assert text is None or (text == text.strip() and "\n" not in text and not text.endswith("."))


def test_of_many_sessions_the_first_are_named_and_the_rest_is_counted():
    check = found("image", replace(GOOD, loaded=None, sessions=[a_session(number) for number in range(25)]))
    assert len(check.loses) == 21
    assert check.loses[-2:] == ["s19 of uid 1000", "and 5 more"]


@pytest.mark.parametrize(
    ("facts", "lost"),
    [
        (GOOD, False),
        (UNKNOWN, False),
        (replace(GOOD, loaded=None), True),
        (loaded("quiet"), True),
        (loaded("liveupdate=on"), False),
        (loaded(kho={"kho-v5"}), True),
        (loaded(luo={"luo-v6"}), True),
        (loaded(luo=(), facts=UNKNOWN), True),
        (loaded(page_size=65536), True),
        (loaded(handlers=()), False),
    ],
)
def test_that_all_is_lost_is_said_only_where_it_is_sure(facts, lost):
    assert all_is_lost(facts) is lost


# Gathering


@pytest.fixture
def sources(kept_machine):
    machine = kept_machine

    def made(**changes):
        usual = {
            "device": machine.control.path,
            "kernel": SharedKernel(SimKernel(machine.control.path), patience=0.0),
            "next_kernel": machine.loader,
            "custodian": machine.custodian,
            "fd_store": machine.fd_store,
            "unclear": machine.recovered.unclear.said(),
            "asked": lambda session: session.name == "asked",
            "other_stores": dict,
            "is_service": False,
        }
        return Sources(**usual | changes)

    return made


def outcomes(facts):
    return {check.name: check.outcome for check in checks(facts) if check.outcome is not Outcome.PASS}


def load(machine, line=LINE, **what):
    with opened(image.bzimage(**what)) as kernel:
        return machine.loader.load(kernel, None, line)


def test_a_simulated_machine_with_a_good_kernel_passes_every_check(kept_machine, sources):
    kept_machine.create("asked", b"one")
    loaded = load(kept_machine)
    facts = gather(Via.DIRECT, sources())
    assert (facts.loaded, facts.any_is_loaded, facts.release) == (loaded, True, image.RELEASE)
    assert facts.journal_room > 1 << 19
    assert outcomes(facts) == {}


def test_a_simulated_machine_with_nothing_loaded_says_so(kept_machine, sources):
    kept_machine.create("ram", b"one")
    facts = gather(Via.SYSTEMD, sources())
    warn, fail = Outcome.WARN, Outcome.FAIL
    assert outcomes(facts) == {"image": fail, "command-line": warn, "abi": warn, "handlers": warn, "unit": fail}
    assert found("image", facts).loses == [f"ram of uid {os.geteuid()}"]


@pytest.mark.parametrize(
    ("line", "what", "comes"),
    [
        (LINE, {}, True),
        ("quiet", {}, False),
        (LINE, {"luo": ["luo-v6"]}, False),
        (LINE, {"kho": ["kho-v5"]}, False),
        (LINE, {"handlers": ["memfd-v3"]}, False),
        (LINE, {"luo": []}, False),
    ],
    ids=["all good", "liveupdate=on is missing", "another LUO", "another KHO", "another handler", "no LUO"],
)
def test_what_preflight_announces_is_what_comes(kept_machine, sources, line, what, comes):
    """The simulated kernel does what preflight says of it."""
    machine = kept_machine
    machine.create("asked", b"one")
    load(machine, line, **what)
    facts = gather(Via.DIRECT, sources())
    assert bool(outcomes(facts)) is not comes
    machine.goes_into_what_is_loaded()
    if comes:
        machine.boot()
        assert machine.contents("asked") == {0: b"one"}
    else:
        assert "asked of uid" in str([check.loses for check in checks(facts)])
        assert machine.impossible()


def test_who_holds_the_device_is_told_where_luod_may_look(kept_machine, sources, tmp_path):
    path = tmp_path / "device"
    path.touch()
    with SimKernel(kept_machine.control.path).open(), open(path):
        facts = gather(Via.DIRECT, sources(device=str(path)))
    assert facts.device_error.errno == errno.EBUSY
    assert facts.holder == f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
    assert outcomes(facts)["device"] is Outcome.FAIL


def test_a_device_whose_holder_is_not_found_is_busy_all_the_same(kept_machine, sources):
    with SimKernel(kept_machine.control.path).open():
        facts = gather(Via.DIRECT, sources())
    assert "another process holds" in found("device", facts).detail


SYSTEMCTL = """#!/bin/sh
case "$*" in
*--property=Version) echo Version=257.13-1~deb13u1 ;;
*SurviveFinalKillSignal*) cat <<END
FileDescriptorStoreMax=64
FileDescriptorStorePreserve=yes
SurviveFinalKillSignal=yes
NeedDaemonReload=no
END
;;
*LoadState*) echo LoadState=loaded ;;
*UnitFileState*)
    printf 'Id=luod-network.service\\nUnitFileState=enabled\\nActiveState=inactive\\n\\n'
    printf 'Id=luod-network-snapshot.service\\nUnitFileState=enabled\\nActiveState=active\\n' ;;
*CanFreeze*) printf 'Id=vm.service\\nCanFreeze=yes\\n\\nId=app.scope\\nCanFreeze=no\\n' ;;
*ActiveState*) printf 'Id=vm.service\\nActiveState=active\\n\\nId=over.scope\\nActiveState=inactive\\n' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A systemd, as far as its systemctl goes; the machine is no simulated one."""

    def says(script):
        directory = tmp_path / "bin"
        directory.mkdir(exist_ok=True)
        (directory / "systemctl").write_text(script)
        (directory / "systemctl").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("luod.systemd._SYSTEMD_RUNS", tmp_path)
    monkeypatch.setattr("luod.sim.client.SimMachine.is_simulated", False)
    monkeypatch.setattr("luod.facts.unit_of", lambda pid: "luod.service")
    says(SYSTEMCTL)
    return says


def unit_facts(sources, via=Via.SYSTEMD, **changes):
    return gather(via, sources(is_service=True, **changes))


@pytest.mark.usefixtures("systemctl")
def test_systemd_tells_of_luods_own_unit(sources):
    facts = unit_facts(sources)
    assert facts.has_systemd
    assert facts.unit == Unit("luod.service", 257, keeps=True, limit=64, survives=True, changed=False)
    assert not facts.exitrd
    assert unit_facts(sources, Via.DIRECT).goes_at_once


@pytest.mark.usefixtures("systemctl")
def test_systemd_tells_of_what_hands_the_network_over(sources):
    assert unit_facts(sources).network_units is None
    facts = unit_facts(sources, handover=lambda: ("br0",))
    assert facts.network_units == NetworkUnits(sets_up=True, writes_down=True)
    assert gather(Via.DIRECT, sources(handover=lambda: ("br0",))).network_units is None


@pytest.mark.usefixtures("systemctl")
def test_an_exitrd_is_seen(sources, tmp_path):
    there = tmp_path / "run/initramfs/shutdown"
    there.parent.mkdir(parents=True)
    there.touch()
    assert unit_facts(sources, root=tmp_path).exitrd


@pytest.mark.usefixtures("systemctl")
def test_units_that_systemd_cannot_pause_are_named_unless_nothing_runs_there(kept_machine, sources, monkeypatch):
    sessions = [
        a_session(0, unit="vm.service"),
        a_session(1, unit="app.scope"),
        a_session(2, unit="gone.scope"),
        a_session(3, name="asked", unit="app2.scope"),
        a_session(4),
        a_session(5, unit="over.scope"),
    ]
    monkeypatch.setattr(kept_machine.custodian, "sessions", lambda: sessions)
    facts = unit_facts(sources, Via.DIRECT)
    assert sorted(facts.unpausable) == ["app.scope", "gone.scope"]
    assert unit_facts(sources, Via.SYSTEMD).unpausable == {}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho no bus >&2; exit 1\n", "systemctl show: no bus"),
        ("#!/bin/sh\necho Version=what\n", "systemctl show doesn't tell it"),
        ("#!/bin/sh\n", "doesn't tell"),
    ],
)
def test_a_systemd_that_does_not_tell_leaves_it_unknown(sources, systemctl, script, reason):
    systemctl(script)
    facts = unit_facts(sources)
    assert reason in facts.unit.because
    assert not unit_facts(sources, Via.DIRECT).goes_at_once
    assert found("unit", facts).outcome is Outcome.FAIL


@pytest.mark.usefixtures("systemctl")
def test_a_luod_outside_of_every_unit_is_no_service(sources, monkeypatch):
    monkeypatch.setattr("luod.facts.unit_of", lambda pid: None)
    assert "no unit's" in unit_facts(sources).unit.because


@pytest.mark.usefixtures("systemctl")
def test_what_others_keep_matters_only_where_pid_1_is_passed_by(sources):
    def others():
        return {"a.service": 2}

    def cant_tell():
        raise CantAsk("systemctl can't be run: it is away")

    assert unit_facts(sources, Via.DIRECT, other_stores=others).stores == {"a.service": 2}
    assert unit_facts(sources, Via.SYSTEMD, other_stores=others).stores == {}
    assert (
        unit_facts(sources, Via.DIRECT, other_stores=cant_tell).stores.because == "systemctl can't be run: it is away"
    )


def test_without_systemd_no_unit_can_be_paused(kept_machine, sources, monkeypatch, tmp_path):
    monkeypatch.setattr("luod.systemd._SYSTEMD_RUNS", tmp_path / "nothing")
    monkeypatch.setattr(kept_machine.custodian, "sessions", lambda: [a_session(0, unit="vm.service")])
    assert gather(Via.DIRECT, sources()).unpausable == {"vm.service": "there is no systemd"}


@pytest.mark.usefixtures("systemctl")
def test_a_systemctl_that_fails_leaves_no_unit_that_could_be_paused(kept_machine, sources, systemctl, monkeypatch):
    systemctl("#!/bin/sh\necho no bus >&2; exit 1\n")
    monkeypatch.setattr(kept_machine.custodian, "sessions", lambda: [a_session(0, unit="vm.service")])
    assert gather(Via.DIRECT, sources()).unpausable == {"vm.service": "systemctl show: no bus"}
