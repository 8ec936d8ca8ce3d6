"""The workspace of a mix: one directory, and every file name in it (mixer specification, section 2).

    builder.yaml            the configuration (mixer.config)
    mixversion              the version to build next, decimal
    mixer.state             FORMAT, and PREVIOUS_MIX_VERSION: the version that the next manifests are compared with
    mixbundles              names of the bundles in the mix, one a line, sorted
    local-bundles/          definitions of this mix; local-packages: package names that are bundles by themselves
    ids.txt                 table of user and group ids, append-only
    update/image/<V>/       what `build bundles` left for `build update`; update/image/LAST_VER
    update/www/             the published tree
    cache/                  everything that can be made again: roots, objects, packs, deltas, packages, parts of images

State files are those of the original, so its workspaces are read and written as they are. Each is replaced in one
step: whoever is interrupted leaves the old content or the new. Commands that change a workspace hold `lock()`.
"""

from __future__ import annotations

import fcntl
import os
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixer.errors import DefinitionError, WorkspaceError
from mixer.located import Located, Origin, read_text
from swupd.fs import replace_file

MAX_VERSION = 2**31 - 1
"""The largest version that clients read."""

MAX_FORMAT = 999
DEFAULT_FORMAT = 30
"""Of a new mix: the first in which manifests have every header line and flag (also-add, experimental, minversion)."""
_MAX_STATE_BYTES = 64 * 1024
_RESTORE = "restore it, or remove it to have it made anew"


@dataclass(frozen=True)
class State:
    """Content of mixer.state."""

    format: int
    previous: int
    """0 before the first version."""


class Workspace:
    """A workspace directory. Nothing is read or created before a method is called."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.config_file = self.path / "builder.yaml"
        self.version_file = self.path / "mixversion"
        self.state_file = self.path / "mixer.state"
        self.bundles_file = self.path / "mixbundles"
        self.local_bundles = self.path / "local-bundles"
        self.local_packages = self.path / "local-packages"
        self.update = self.path / "update"
        self.images = self.update / "image"
        self.www = self.update / "www"
        self.last_version_file = self.images / "LAST_VER"
        self.cache = self.path / "cache"
        self.roots = self.cache / "roots"
        self.objects = self.cache / "objects"
        self.frames = self.cache / "frames"
        self.deltas = self.cache / "deltas"
        self.debs = self.cache / "debs"
        self.layers = self.cache / "layers"
        self.plain_files = self.cache / "files"
        self.kernels = self.cache / "kernels"
        self.lock_file = self.path / ".mixer.lock"

    def image(self, version: int) -> Path:
        """What `build bundles` leaves for `build update`."""
        return self.images / str(version)

    def full(self, version: int) -> Path:
        """The merged root of all bundles."""
        return self.image(version) / "full"

    def published(self, version: int) -> Path:
        return self.www / str(version)

    def shown(self, path: Path) -> str:
        """A path as messages show it: relative to the workspace where it is inside."""
        try:
            return str(path.relative_to(self.path))
        except ValueError:
            return str(path)

    def require(self) -> None:
        """Raises WorkspaceError if this is no workspace."""
        if self.config_file.is_file():
            return
        if (self.path / "builder.conf").is_file():
            hint = "this is a workspace of the original mixer: `mixer init` adds builder.yaml and keeps all else"
        else:
            hint = "begin with `mixer init`, or name the workspace with --workspace DIR"
        raise WorkspaceError(f"{self.path} is not a workspace: it has no builder.yaml", hint=hint)

    # -- versions --------------------------------------------------------------------------------------------------

    def mix_version(self) -> int:
        """The version to build next, at least 1."""
        version = self._read_number(self.version_file, default=None)
        if version < 1:
            raise WorkspaceError(
                "mixversion must be at least 1", hint="set it with `mixer versions update --mix-version N`"
            )
        return version

    def set_mix_version(self, version: int) -> None:
        replace_file(self.version_file, f"{version}\n".encode())

    def last_version(self) -> int:
        """The version of the last completed `build update`, 0 before the first."""
        return self._read_number(self.last_version_file, default=0)

    def set_last_version(self, version: int) -> None:
        self.images.mkdir(parents=True, exist_ok=True)
        replace_file(self.last_version_file, f"{version}\n".encode())

    def state(self) -> State:
        """mixer.state; if it is missing, the state that follows from what was published last."""
        try:
            data = self._read(self.state_file)
        except FileNotFoundError:
            last = self.last_version()
            return State(self._read_number(self.published(last) / "format", default=DEFAULT_FORMAT), last)
        try:
            mix = tomllib.loads(data.decode()).get("Mix")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WorkspaceError(f"mixer.state: {error}", hint=_RESTORE) from error
        if not isinstance(mix, dict):
            raise WorkspaceError("mixer.state has no section [Mix]", hint=_RESTORE)
        return State(
            _number(str(mix.get("FORMAT", "")), "FORMAT in mixer.state", 1, MAX_FORMAT),
            _number(str(mix.get("PREVIOUS_MIX_VERSION", "")), "PREVIOUS_MIX_VERSION in mixer.state", 0, MAX_VERSION),
        )

    def set_state(self, state: State) -> None:
        text = f'#VERSION 1.1\n\n[Mix]\nFORMAT = "{state.format}"\nPREVIOUS_MIX_VERSION = "{state.previous}"\n'
        replace_file(self.state_file, text.encode())

    # -- bundles ---------------------------------------------------------------------------------------------------

    def mix_bundles(self) -> tuple[Located, ...]:
        """The names in mixbundles with their lines, in file order, each once; empty if there is no file."""
        try:
            text = read_text(self.bundles_file, Origin(self.shown(self.bundles_file), DefinitionError))
        except FileNotFoundError:
            return ()
        names: dict[str, int] = {}
        for line, content in enumerate(text.split("\n"), start=1):
            name = content.split("#", 1)[0].strip()
            if name:
                names.setdefault(name, line)
        return tuple(Located(name, line) for name, line in names.items())

    def set_mix_bundles(self, names: Collection[str]) -> None:
        replace_file(self.bundles_file, "".join(f"{name}\n" for name in sorted(set(names))).encode())

    # -- exclusion -------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for this process. Raises WorkspaceError at once if another one has it."""
        fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                raise WorkspaceError(
                    f"another mixer is working in {self.path} (process {holder})",
                    hint="wait for it to finish, or use another workspace",
                ) from error
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as stream:
            return stream.read(_MAX_STATE_BYTES)

    def _read_number(self, path: Path, *, default: int | None) -> int:
        try:
            data = self._read(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            if default is None:
                raise WorkspaceError(f"{self.shown(path)} is missing", hint="begin with `mixer init`") from error
            return default
        return _number(data.decode(errors="replace"), self.shown(path), 0, MAX_VERSION)


def _number(text: str, what: str, minimum: int, maximum: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and minimum <= int(text) <= maximum):
        raise WorkspaceError(
            f"{what} must be a number from {minimum} to {maximum}, not {text[:40]!r}", hint="restore the file by hand"
        )
    return int(text)
