"""The units and scripts that the builder ships."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd import cli
from swupd.nextboot import health
from swupd.statedir import DEFAULT
from swupd.transaction.journal import State

OSFILES = Path(__file__).parents[3] / "mixer" / "osfiles"
UPDATER = OSFILES / "os-core-update"
BASE = OSFILES / "os-core"
UNITS = {
    path.name: path
    for path in sorted(OSFILES.rglob("usr/lib/systemd/system/*"))
    if path.suffix in (".service", ".timer", ".mount")
}
SCRIPTS = [
    OSFILES / "initrd" / "init",
    OSFILES / "initrd" / "state",
    BASE / "usr/lib/swupd/init",
    UPDATER / "usr/lib/swupd/health.d/10-state-is-writable",
]
BUSYBOX = shutil.which("busybox")
SHELLS = [["/bin/sh"], *([[BUSYBOX, "sh"]] if BUSYBOX else [])]


def commands(unit: str) -> list[list[str]]:
    lines = UNITS[unit].read_text().splitlines()
    return [line.partition("=")[2].split() for line in lines if line.startswith("ExecStart=")]


def read(unit: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS[unit])
    return parser


# -- units


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    for name, path in UNITS.items():
        lines = path.read_text().splitlines(keepends=True)
        (tmp_path / name).write_text(
            "".join("ExecStart=/bin/true\n" if line.startswith("ExecStart=") else line for line in lines)
        )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if any(name in line for name in UNITS)] == []
    assert done.returncode == 0


def test_every_command_of_a_unit_is_one_that_the_parser_takes() -> None:
    options = {"$UPDATE_OPTIONS": "--next-boot"}
    ours = [command for name in UNITS for command in commands(name) if command[0] == "/usr/bin/swupd"]
    assert len(ours) == 5
    for _, *arguments in ours:
        name, rest = cli._subcommand([options.get(argument, argument) for argument in arguments])
        cli.subcommand_parser(name, cli.load(name)).parse_args(rest)


def test_the_timer_has_the_times_of_the_original() -> None:
    assert dict(read("swupd-update.timer")["Timer"]) == {
        "OnBootSec": "45min",
        "OnUnitActiveSec": "45min",
        "AccuracySec": "300s",
        "RandomizedDelaySec": "2700s",
    }
    assert read("swupd-update.timer")["Install"]["WantedBy"] == "multi-user.target"


def test_recovery_at_boot_looks_for_the_journal_in_every_state() -> None:
    pattern = read("swupd-recover.service")["Unit"]["ConditionPathExistsGlob"]
    assert all(Path(DEFAULT, state.value).match(pattern) for state in State)


def test_the_options_of_automatic_updates_are_those_that_the_initrd_writes() -> None:
    service = read("swupd-update.service")["Service"]
    written = service["EnvironmentFile"].removeprefix("-")
    assert f">{written}" in (OSFILES / "initrd" / "init").read_text()


@pytest.mark.parametrize("unit", ["swupd-health.service", "swupd-boot-complete.service"])
def test_what_judges_a_boot_leads_to_the_fallback_if_it_fails_or_takes_too_long(unit: str) -> None:
    assert read(unit)["Unit"]["OnFailure"] == "swupd-fallback.service"
    assert read(unit)["Service"]["TimeoutStartSec"] == "5min"


def test_the_health_checks_are_over_before_systemd_ends_them() -> None:
    limit = read("swupd-health.service")["Service"]["TimeoutStartSec"]
    assert 60 * int(limit.removesuffix("min")) > health.TOTAL_SECONDS


@pytest.mark.parametrize("unit", ["swupd-trial.timer", "swupd-fallback.service"])
def test_only_a_boot_on_trial_is_left(unit: str) -> None:
    assert read(unit)["Unit"]["ConditionPathExists"] == "/run/swupd/trial"


# -- scripts


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shells_understand_every_script(script: Path, shell: list[str]) -> None:
    assert script.read_text().startswith("#")
    subprocess.run([*shell, "-n", script], check=True)


class MachineState:
    """A directory that stands for @state, and what the initrd does in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("etc/upper", "var", "boot"):
            (path / name).mkdir(parents=True)
        self.upper = path / "etc/upper"

    def run(self, script: str) -> str:
        """Run a line with the functions of the initrd; what it said."""
        beside = 'say() { echo "$2"; }; sync() { :; }'
        done = subprocess.run(
            [*SHELLS[-1], "-c", f'. "{OSFILES}/initrd/state"; {beside}; {script}'],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=True,
            errors="surrogateescape",
        )
        assert done.stderr == ""
        return done.stdout

    def revert(self, *names: str) -> str:
        (self.path / "etc/revert").write_text("\n".join(names))
        return self.run(f'revert "{self.path}"')

    def reset(self, lines: str) -> str:
        (self.path / "boot/reset").write_text(lines)
        return self.run(f'reset "{self.path}"')


@pytest.fixture
def state(tmp_path: Path) -> MachineState:
    return MachineState(tmp_path / "state")


def test_a_revert_removes_files_and_trees_from_the_changes(state: MachineState) -> None:
    (state.upper / "hosts").write_text("mine")
    (state.upper / "ssh").mkdir()
    (state.upper / "ssh/config").write_text("mine")
    (state.upper / "a name with spaces ").write_text("mine")
    (state.upper / "other").write_text("mine")
    said = state.revert("hosts", "ssh", "a name with spaces ")
    assert said.splitlines() == ["reverted hosts", "reverted ssh", "reverted a name with spaces "]
    assert [path.name for path in state.upper.iterdir()] == ["other"]
    assert not (state.path / "etc/revert").exists()


def test_a_revert_of_what_was_not_changed_is_done(state: MachineState) -> None:
    (state.upper / "file").write_text("mine")
    assert state.revert("nothing", "no/such/directory", "file/below").count("reverted") == 3
    assert (state.upper / "file").exists()


@pytest.mark.parametrize("name", ["", "/", "/hosts", "..", "../x", "a/../../x", "./hosts", "a//b", "ssh/", "ssh/.."])
def test_a_revert_never_leaves_the_changes(state: MachineState, name: str) -> None:
    (state.upper / "ssh").mkdir()
    (state.upper / "hosts").write_text("mine")
    (state.path / "etc/x").write_text("another's")
    assert state.revert(name, "end") == f"cannot revert {name}\nreverted end\n"
    assert (state.path / "etc/x").exists()
    assert {path.name for path in state.upper.iterdir()} == {"hosts", "ssh"}


def test_a_revert_never_goes_through_a_link(state: MachineState) -> None:
    victim = state.path / "victim"
    (victim / "below").mkdir(parents=True)
    (victim / "file").write_text("another's")
    (state.upper / "link").symlink_to(victim)
    (state.upper / "directory").mkdir()
    (state.upper / "directory/link").symlink_to(victim)
    said = state.revert("link/file", "directory/link/below", "directory/link/below/x")
    assert said.count("cannot revert") == 3
    assert {path.name for path in victim.iterdir()} == {"below", "file"}
    assert state.revert("link", "directory") == "reverted link\nreverted directory\n"
    assert list(state.upper.iterdir()) == []
    assert (victim / "file").exists()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "", "a", "link", "*", "$(x)", "-rf", "b c"]), max_size=5).map("/".join))
def test_whatever_is_to_be_reverted_nothing_else_is_lost(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    state = MachineState(tmp_path_factory.mktemp("reverts") / "state")
    (state.path / "a").write_text("another's")
    (state.path / "etc/a").write_text("another's")
    (state.upper / "link").symlink_to(state.path)
    (state.upper / "kept").write_text("mine")
    state.revert(name)
    assert (state.path / "a").exists()
    assert (state.path / "etc/a").exists()
    assert (state.upper / "kept").exists()


def test_a_list_that_is_a_link_is_not_read(state: MachineState) -> None:
    (state.upper / "hosts").write_text("mine")
    (state.path / "foreign").write_text("hosts")
    (state.path / "etc/revert").symlink_to(state.path / "foreign")
    assert state.run(f'revert "{state.path}"') == ""
    assert (state.upper / "hosts").exists()


def test_a_reset_empties_what_it_names_and_keeps_the_places(state: MachineState) -> None:
    (state.upper / "hosts").write_text("mine")
    (state.upper / ".hidden").write_text("mine")
    (state.upper / "..odd").write_text("mine")
    (state.path / "var/lib").mkdir()
    assert state.reset("etc\n") == "reset etc\n"
    assert list(state.upper.iterdir()) == []
    assert (state.path / "var/lib").exists()
    (state.path / "var/link").symlink_to("/nowhere")
    assert state.reset("var") == "reset var\n"
    assert list((state.path / "var").iterdir()) == []
    assert not (state.path / "boot/reset").exists()


def test_a_reset_knows_etc_and_var_only(state: MachineState) -> None:
    (state.path / "home").mkdir()
    (state.path / "home/me").mkdir()
    assert state.reset("home\n../x\n").count("cannot reset") == 2
    assert (state.path / "home/me").exists()


# -- the health check


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
@pytest.mark.parametrize(("limit", "status"), [("unlimited", 0), ("0", 1)])
def test_the_check_whether_state_is_writable_leaves_nothing(
    tmp_path: Path, shell: list[str], limit: str, status: int
) -> None:
    text = (UPDATER / "usr/lib/swupd/health.d/10-state-is-writable").read_text()
    assert " in /etc /var;" in text
    (tmp_path / "check").write_text(text.replace(" in /etc /var;", " in etc var;"))
    for name in ("etc", "var"):
        (tmp_path / name).mkdir()
    full = f"trap '' XFSZ; ulimit -f {limit}; . ./check"
    done = subprocess.run([*shell, "-c", full], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout == ("etc cannot be written\n" if status else "")
    assert [*(tmp_path / "etc").iterdir(), *(tmp_path / "var").iterdir()] == []


# -- the wrapper for PID 1


class EmptyEtc:
    """A root that boots without our initrd."""

    def __init__(self, path: Path) -> None:
        self.etc = path / "etc"
        self.factory = path / "factory"
        self.etc.mkdir()
        (self.factory / "ssh").mkdir(parents=True)
        (self.factory / "ssh/sshd_config").write_text("factory")
        (self.factory / "passwd").write_text("root")
        (self.factory / "shadow").write_text("secret")
        (self.factory / "shadow").chmod(0o640)
        (self.factory / ".updated").write_text("hidden")
        (self.factory / "mtab").symlink_to("../proc/self/mounts")
        text = (BASE / "usr/lib/swupd/init").read_text()
        assert "FACTORY=/usr/share/factory/etc\nETC=/etc\n" in text
        text = text.replace("FACTORY=/usr/share/factory/etc\nETC=/etc\n", f"FACTORY={self.factory}\nETC={self.etc}\n")
        self.script = path / "init"
        self.script.write_text(text.replace("exec /usr/lib/systemd/systemd", "exec echo started"))

    def boot(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", self.script, "-x"], capture_output=True, text=True, check=False)


@pytest.fixture
def root(tmp_path: Path) -> EmptyEtc:
    return EmptyEtc(tmp_path)


def test_an_empty_etc_is_filled_and_the_service_manager_started(root: EmptyEtc) -> None:
    done = root.boot()
    assert (done.returncode, done.stdout, done.stderr) == (0, "started -x\n", "")
    expected = {path.name for path in root.factory.iterdir()}
    assert {path.name for path in root.etc.iterdir()} == expected
    assert (root.etc / "shadow").stat().st_mode & 0o777 == 0o640
    assert (root.etc / "mtab").is_symlink()


def test_an_etc_with_users_is_left_alone(root: EmptyEtc) -> None:
    (root.etc / "passwd").write_text("mine")
    assert root.boot().returncode == 0
    assert [path.name for path in root.etc.iterdir()] == ["passwd"]


def test_what_a_container_has_put_into_etc_stays(root: EmptyEtc) -> None:
    victim = root.etc.parent / "victim"
    victim.write_text("another's")
    (root.etc / "shadow").symlink_to(victim)
    (root.etc / ".factory.new").symlink_to(root.etc.parent)
    assert root.boot().returncode == 0
    assert victim.read_text() == "another's"
    assert (root.etc / "passwd").exists()
    assert not (root.etc / ".factory.new").is_symlink()


def test_what_was_interrupted_is_done_again(root: EmptyEtc) -> None:
    shutil.copytree(root.factory, root.etc / ".factory.new", symlinks=True)
    (root.etc / ".factory.new/shadow").write_text("")
    assert root.boot().returncode == 0
    assert (root.etc / "shadow").read_text() == "secret"


def test_an_etc_that_is_a_link_is_not_followed(root: EmptyEtc) -> None:
    elsewhere = root.etc.rename(root.etc.parent / "elsewhere")
    root.etc.symlink_to(elsewhere)
    done = root.boot()
    assert done.returncode == 1
    assert "is not a directory" in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_a_root_without_a_factory_says_so(root: EmptyEtc) -> None:
    (root.factory / "passwd").unlink()
    done = root.boot()
    assert (done.returncode, done.stdout) == (1, "")
    assert "there are no users" in done.stderr
