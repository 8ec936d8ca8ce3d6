"""A small OS in temporary directories: a published tree with real objects, a machine with a root, and how one gets to
the other. Nothing is faked but the network, which is a file URL."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swupd.formats import archive, delta, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_path, walk
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.network.fetch import Fetcher
from swupd.plan import FileList, PackNeed, Plan
from swupd.session import Session
from swupd.settings import Settings
from swupd.staging import Stager, StageResult
from swupd.statedir import StateDir
from swupd.transaction.install import Installer, InstallResult
from swupd.transaction.journal import Purpose
from swupd.transaction.recovery import end as end_journal
from swupd.transaction.recovery import recover
from swupd.verify import settle
from tests.unit.swupd.nextboot.disk import MachineDisk, machine_on_disk

PURPOSE = Purpose("update", 10, 20, scripts=False, record_version=True)


@dataclass
class RecordingReport:
    """Keeps what it is told."""

    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def start(self, section: str) -> None:
        pass

    def end(self, status: int) -> None:
        pass

    def answer(self, text: str) -> None:
        self.lines.append(text)

    info = verbose = debug = answer

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def error(self, text: str, hint: str = "") -> None:
        raise AssertionError(text)

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None:
        self.steps.append(name)

    def progress(self, done: int, total: int, received: int = 0) -> None:
        assert 0 <= done <= total

    def question(self, text: str) -> bool:
        return False

    def hand_over(self) -> dict[str, str]:
        return {}


def member_of(path: Path, name: str) -> tuple[Member, bytes]:
    """What is at `path` as an archive member."""
    status = path.lstat()
    common = (status.st_mode, status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        return Member(name, ObjectType.LINK, *common, target=os.readlink(path)), b""
    if stat.S_ISDIR(status.st_mode):
        return Member(name, ObjectType.DIRECTORY, *common), b""
    content = path.read_bytes()
    return Member(name, ObjectType.FILE, *common, len(content), int(status.st_mtime)), content


def entry_at(path: Path, name: str, version: int) -> Entry:
    """The manifest line for what is at `path`."""
    status = path.lstat()
    kind = FileType.LINK if path.is_symlink() else FileType.DIRECTORY if stat.S_ISDIR(status.st_mode) else FileType.FILE
    return Entry.present(kind, hash_path(str(path)), version, name)


def delta_between(start: Path, end: Path) -> bytes:
    """A delta that takes the beginning of the old file and inserts what the new one has more."""
    old, new, after = start.read_bytes(), end.read_bytes(), end.stat()
    same = min(len(old), len(new))
    changes = bytes((b - a) % 256 for a, b in zip(old[:same], new[:same], strict=True))
    owner = {"mode": after.st_mode, "uid": after.st_uid, "gid": after.st_gid}
    return delta.encode(len(old), [(same, len(new) - same, 0)], changes, new[same:], **owner)


def tree_of(root: Path) -> dict[str, str]:
    """Everything below a root: name -> swupd hash."""
    return {found.name: hash_path(found.path) for found in walk(str(root))}


class Publisher:
    """Makes published trees from plain ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sources: dict[str, Path] = {}
        """Where an object comes from, by hash."""

    @property
    def url(self) -> str:
        return f"file://{self.directory}"

    def publish(self, tree: Path, version: int, previous: Mapping[str, Entry] | None = None) -> FileList:
        """The files of `tree` as `version`; what changed since `previous` gets fullfiles, what went a tombstone."""
        files: FileList = {}
        for found in walk(str(tree)):
            entry = entry_at(Path(found.path), found.name, version)
            old = (previous or {}).get(found.name)
            if old is not None and old.is_present and old.hash == entry.hash:
                entry = old
            self.sources.setdefault(entry.hash, Path(found.path))
            files[found.name] = entry
            if entry.version == version:
                self.fullfile(entry)
        for name, old in (previous or {}).items():
            if name not in files:
                files[name] = Entry.deleted(version, name) if old.is_present else old
        return files

    def fullfile(self, entry: Entry) -> Path:
        target = self.directory / layout.fullfile(entry.version, entry.hash)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.fullfile(*member_of(self.sources[entry.hash], entry.hash)))
        return target

    def drop_fullfiles(self, version: int) -> None:
        shutil.rmtree(self.directory / layout.fullfiles(version))

    def pack(
        self, bundle: str, old: int, new: int, hashes: Iterable[str], deltas: Sequence[tuple[str, str]] = ()
    ) -> PackNeed:
        """A pack with these objects, and deltas from and to these hashes."""
        target = self.directory / layout.pack(new, bundle, old)
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = list(hashes)
        objects: list[tuple[Member, list[bytes]]] = []
        for start, end in deltas:
            made = delta_between(self.sources[start], self.sources[end])
            name = f"{layout.DELTA_DIRECTORY}/{layout.delta_name(start, end)}"
            objects.append((Member(name, ObjectType.FILE, stat.S_IFREG | 0o644, 0, 0, len(made)), [made]))
        for file_hash in whole:
            member, content = member_of(self.sources[file_hash], layout.staged_name(file_hash))
            objects.append((member, [content] if content else []))
        with target.open("wb") as file:
            archive.write_pack(file, objects)
        return PackNeed(bundle, old, new, frozenset(whole) | {end for _, end in deltas})


class Machine:
    """A root with its state directory, and the client's parts around them."""

    def __init__(self, directory: Path, url: str) -> None:
        self.root = directory / "root"
        self.root.mkdir(parents=True)
        self.report = RecordingReport()
        self.purpose = PURPOSE
        state = directory / "state"
        self.statedir = StateDir(state, state, url)
        self.statedir.prepare()
        self.settings = Settings(
            root=self.root,
            cache_dir=state,
            data_dir=state,
            content_url=url,
            version_url=url,
            format="30",
            certificate=directory / "none.pem",
            max_retries=0,
        )

    def stage(
        self, entries: Iterable[Entry], packs: Sequence[PackNeed] = (), current: FileList | None = None
    ) -> StageResult:
        with self.stager() as (stager, _):
            return stager.stage(entries, packs=packs, current=current)

    def apply(self, entries: Iterable[Entry], remove: Iterable[str], wanted: FileList) -> InstallResult:
        """Install what is staged."""
        with self._installer() as installer:
            return installer.apply(entries, remove, wanted, self.purpose)

    def install(self, entries: Iterable[Entry], remove: Iterable[str], wanted: FileList) -> InstallResult:
        with self._installer() as installer:
            return installer.install(entries, remove, wanted, self.purpose)

    def bring(self, plan: Plan, wanted: FileList, current: FileList | None = None) -> InstallResult:
        """Carry out a plan as a command does."""
        plan = settle(plan, self.root, wanted, self.report)
        with self.stager() as (stager, _):
            stager.stage(plan.install, packs=plan.packs, current=current)
            result = self.apply(plan.install, plan.remove, wanted)
            stager.release(plan.install)
        return result

    def recover(self, *, looking: bool = False) -> None:
        """What every command does first."""
        with ExitStack() as resources:
            recover(Session(self.settings, self.report, resources), looking=looking)

    @contextmanager
    def _installer(self) -> Iterator[Installer]:
        """Ends the journal, as a command does."""
        with (
            Directory.open(self.root) as root,
            Directory.open(self.statedir.staged) as staged,
            Directory.open(self.statedir.data_dir) as data,
        ):
            yield Installer(root, staged, data, self.report)
            end_journal(data, self.purpose)

    def stager(self) -> _OpenStager:
        return _OpenStager(self)

    @property
    def staged(self) -> set[str]:
        return set(os.listdir(self.statedir.staged))


class _OpenStager:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __enter__(self) -> tuple[Stager, Directory]:
        machine = self._machine
        self._fetcher = Fetcher(machine.settings, machine.report)
        self._root = Directory.open(machine.root)
        url = machine.settings.content_url
        self._stager = Stager(machine.statedir, url, self._fetcher, self._root, machine.report)
        return self._stager, self._root

    def __exit__(self, *error: object) -> None:
        self._stager.close()
        self._root.close()
        self._fetcher.close()


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "published")


@pytest.fixture
def machine(tmp_path: Path, publisher: Publisher) -> Machine:
    publisher.directory.mkdir()
    return Machine(tmp_path / "machine", publisher.url)


@pytest.fixture
def new_machine() -> Callable[[Path], tuple[Publisher, Machine]]:
    """A publisher and a machine in a directory of their own, for tests that need many."""

    def make(directory: Path) -> tuple[Publisher, Machine]:
        publisher = Publisher(directory / "published")
        publisher.directory.mkdir(parents=True)
        return publisher, Machine(directory / "machine", publisher.url)

    return make


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    return tree_of


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that install hundreds of times."""
    monkeypatch.setattr(Directory, "sync", lambda self: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def report() -> RecordingReport:
    return RecordingReport()


class Terminal:
    """A pseudo terminal of 80 by 24 that runs a program, and what is to be read on it afterwards."""

    def __init__(self) -> None:
        self.raw = ""
        self.status = -1

    def run(self, *argv: str, answers: Sequence[tuple[str, bytes]] = (), **environment: str) -> list[str]:
        """The lines that stay on the terminal. answers: when the text is read, the bytes are typed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | environment
            os.execv(argv[0], argv)
        waiting = list(answers)
        raw, answered = b"", 0
        while data := self._read(terminal, pid):
            raw += data
            if waiting and waiting[0][0].encode() in raw[answered:]:
                answered = len(raw)
                os.write(terminal, waiting.pop(0)[1])
        os.close(terminal)
        self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.raw = raw.decode()
        return screen(self.raw)

    @staticmethod
    def _read(terminal: int, pid: int) -> bytes:
        if not select.select([terminal], [], [], 20)[0]:
            os.kill(pid, signal.SIGKILL)
        try:
            return os.read(terminal, 1 << 16)
        except OSError:  # how Linux tells that the other side is closed
            return b""


def screen(raw: str) -> list[str]:
    """What a terminal shows after it got these signs; it knows what rich uses of the control sequences."""
    lines, row, column = [""], 0, 0
    for control, number, letter, sign in re.findall(
        r"(\x1b\[([0-9;?]*)([A-Za-z]))|([^\x1b])", raw.replace("\r\n", "\n")
    ):
        if control and letter == "A":
            row = max(row - int(number or 1), 0)
        elif control and letter == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif sign == "\r":
            column = 0
        elif sign == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif sign:
            lines[row] = f"{lines[row][:column]:{column}}{sign}{lines[row][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines]


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def machine_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_sync: None
) -> Iterator[MachineDisk]:
    """A machine that boots deployments from a real disk; see tests/unit/swupd/nextboot/disk.py."""
    with machine_on_disk(tmp_path, capsys, monkeypatch) as disk:
        yield disk
