"""Finished roots by key, so that packages are installed only when something about them changed.

In the cache directory, for each root:

    <key>.tar.zst     the whole root, owners as numbers
    <key>.json        its package database and ids; written last: without it the root does not exist

`load` knows in milliseconds whether a root is there and unpacks it in seconds. Both files appear whole or not at all,
the archive carries a checksum, and an entry that turns out to be damaged is dropped and counts as missing: everything
here can be made again. Beyond KEEP roots, those that were not used for the longest time go.

For one process at a time; the caller holds the workspace's lock.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from mixer.errors import SourceError
from mixer.sources import Package, PackageDatabase
from swupd.process import ENVIRONMENT

KEEP = 4
"""Roots that are kept: the last versions, and what an experiment between them needs."""
LEVEL = 3
"""zstd level: a root of 430 MB becomes 133 MB in 2 s on two cores; level 9 saves 10 % and takes twice as long."""
MAX_RECORD_BYTES = 512 * 1024 * 1024
_MESSAGE_BYTES = 500
"""How much of tar's complaints an error repeats."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a finished root."""

    database: PackageDatabase
    accounts: Mapping[str, Mapping[str, int]]
    """Kind -> name -> id of its users and groups."""
    notes: tuple[str, ...]
    """What was lost or changed in finishing it; shown at every use."""


class RootCache:
    """A directory of finished roots."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, key: str) -> Record | None:
        """What is known about the root of a key, None if there is none."""
        path = self._record(key)
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_RECORD_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(data) <= MAX_RECORD_BYTES and self._archive(key).is_file():
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                return _from_json(json.loads(data))
        self.drop(key)
        return None

    def unpack(self, key: str, root: Path) -> bool:
        """Make the root of a key at `root`, which must not exist; False, and nothing there, if it is damaged.

        Raises SourceError, with nothing there, if there is no room for it.
        """
        root.mkdir(mode=0o755)
        archive = self._archive(key)
        try:
            with archive.open("rb") as source, _tar("--extract", "--preserve-permissions", root) as tar:
                zstandard.ZstdDecompressor().copy_stream(source, cast("BinaryIO", tar.stdin))
        except (OSError, zstandard.ZstdError) as error:
            shutil.rmtree(root)
            if os.strerror(errno.ENOSPC) in str(error):
                raise SourceError(
                    f"no room for the root in {root.parent}", hint="make room, then build again"
                ) from error
            self.drop(key)
            return False
        except BaseException:
            shutil.rmtree(root)
            raise
        for path in (archive, self._record(key)):
            os.utime(path)
        return True

    def add(self, key: str, root: Path, record: Record) -> None:
        """Keep a root. Raises SourceError if that is not possible; nothing of it is left then."""
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f".{key}.partial"
        try:
            with partial.open("wb") as target, _tar("--create", "--sort=name", root, ".") as tar:
                compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1, write_checksum=True)
                compressor.copy_stream(cast("BinaryIO", tar.stdout), target)
            partial.rename(self._archive(key))
            # Not synced: what a power cut spoils is noticed, and waiting for the disk would take longer than all else.
            partial.write_text(json.dumps(_to_json(record)))
            partial.rename(self._record(key))
        except OSError as error:
            self.drop(key)
            raise SourceError(
                f"cannot keep the finished root in {self._directory}: {error.strerror or error}",
                hint="make room there; the cache can be removed as a whole at any time",
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        self._prune()

    def drop(self, key: str) -> None:
        """Forget a root."""
        for path in (self._record(key), self._archive(key)):
            path.unlink(missing_ok=True)

    def _prune(self) -> None:
        """Keep the KEEP roots that were used last; what a killed process left goes too."""
        for stale in self._directory.glob(".*.partial"):
            stale.unlink()
        records = sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for record in records[KEEP:]:
            self.drop(record.stem)
        kept = {record.stem for record in records[:KEEP]}
        for archive in self._directory.glob("*.tar.zst"):
            if archive.name.removesuffix(".tar.zst") not in kept:
                archive.unlink()

    def _archive(self, key: str) -> Path:
        return self._directory / f"{key}.tar.zst"

    def _record(self, key: str) -> Path:
        return self._directory / f"{key}.json"


@contextmanager
def _tar(action: str, option: str, root: Path, *names: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running tar in `root`; leaving the block waits for it. OSError with its last words if it fails."""
    with tempfile.TemporaryFile() as messages:
        child = subprocess.Popen(
            ["tar", action, option, "--numeric-owner", "--file=-", f"--directory={root}", *names],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL if names else subprocess.PIPE,
            stdout=subprocess.PIPE if names else subprocess.DEVNULL,
            stderr=messages,
        )
        try:
            yield child
        except BrokenPipeError:
            pass  # tar has ended, and says below why
        except BaseException:
            child.kill()
            raise
        finally:
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    with suppress(BrokenPipeError):
                        pipe.close()
            status = child.wait()
        if status != 0:
            messages.seek(0)
            raise OSError(os.fsdecode(messages.read(_MESSAGE_BYTES)).strip() or f"tar failed with status {status}")


def _to_json(record: Record) -> dict[str, Any]:
    database = record.database
    return {
        "packages": [
            {field.name: getattr(package, field.name) for field in fields(package)}
            for package in database.packages.values()
        ],
        "base": sorted(database.base),
        "unowned": database.unowned,
        "accounts": record.accounts,
        "notes": record.notes,
    }


def _from_json(value: dict[str, Any]) -> Record:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything that `_to_json` would not have written."""
    packages = [
        Package(**{**package, "files": tuple(package["files"]), "requires": tuple(package["requires"])})
        for package in value["packages"]
    ]
    database = PackageDatabase(
        {package.name: package for package in packages}, frozenset(value["base"]), tuple(value["unowned"])
    )
    accounts = {kind: {name: int(number) for name, number in ids.items()} for kind, ids in value["accounts"].items()}
    return Record(database, accounts, tuple(value["notes"]))
