"""A published tree in an object store that speaks S3, through s3fs (fsspec) and its botocore.

Endpoint, region and credentials are the library's business: its environment variables (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, …) and configuration files. None of them is ever shown. docs/object-store.md is for the operator.

An object store has no renames: a file appears when its PUT is complete, so the order of the PUTs is all there is.

* A new version: all its files, many at a time; its MoM; the latest files. Clients never see a version number whose
  files are not complete.
* A version that is built again with another MoM cannot be exchanged in one step: clients that update to it in this
  very moment may find a manifest that is not what their MoM says, and have to ask again. New objects come first,
  changed ones then, the archive and the signature of the MoM next, then the latest files, and what does not belong to
  the version any more is removed. The plain MoM, which no client reads, comes last of all: as long as it is the former
  one, the next run knows that all this is to be finished.
* Nothing is uploaded twice. An object stays if it has the size of the file and either the file's MD5 as its ETag, which
  is what a PUT in one piece leaves, or the file's SHA-256 in its metadata: objects in several parts and encrypted ones
  have other ETags. So a publication that was interrupted goes on where it stopped.

Failures are BuildErrors of one line that name the URL. The library repeats requests that may succeed the next time.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mixer.errors import BuildError
from mixer.places import Addition, files_below
from swupd.formats import layout
from swupd.report import Report

CONNECTIONS = 8
"""Files that are on their way at a time."""
PART_BYTES = 16 << 20
"""A file smaller than two parts is one PUT, and its ETag the MD5; a larger one is sent in parts of this size. The store
accepts 10,000 of them: 160 GB."""
PARTS_AT_ONCE = 2
"""Parts of one file that are in memory and on their way: CONNECTIONS · PARTS_AT_ONCE · PART_BYTES are 256 MiB."""
READ_BYTES = 8 << 20
"""What is fetched at a time when a file is read."""
CONNECT_SECONDS = 10
ANSWER_SECONDS = 30
"""How long a request may go without any answer before it is repeated."""
ATTEMPTS = 2
"""Times that s3fs makes a request. Each of them is repeated by botocore, which AWS_MAX_ATTEMPTS governs."""
MAX_REASON = 300
"""Characters of the library's or the server's own words in a message."""

CACHED = "public, max-age=31536000"
ASKED_FOR = "no-cache"
"""Cache-Control of a file that has its name for good, and of one that is replaced when versions or additions come."""
CONTENT_TYPE = "application/octet-stream"
"""Of everything, so that nobody on the way compresses or converts anything."""

_Info = Mapping[str, Any]
_PASSWORD = re.compile(r"//[^/\s]*@")
"""What stands before the host in the URL of an endpoint."""


class ObjectStore:
    """A place (`mixer.places.Place`) in a bucket."""

    def __init__(self, url: str, drafts: Path, report: Report) -> None:
        """`url` is s3://bucket or s3://bucket/path; `drafts` a directory of this machine for this purpose alone.

        Raises BuildError if the library is missing or the bucket cannot be listed.
        """
        self._url = url
        self._root = url.removeprefix("s3://")
        self._drafts = drafts
        self._report = report
        try:
            from s3fs import S3FileSystem
        except ImportError as error:
            raise BuildError(f"{url} cannot be used without s3fs", hint="pip install 'swupd-mixer[s3]'") from error
        bucket, _, path = self._root.partition("/")
        with _errors(f"use {url}"):
            self._fs = S3FileSystem(
                use_listings_cache=False,
                skip_instance_cache=True,
                max_concurrency=PARTS_AT_ONCE,
                config_kwargs={
                    "max_pool_connections": CONNECTIONS * PARTS_AT_ONCE,
                    "connect_timeout": CONNECT_SECONDS,
                    "read_timeout": ANSWER_SECONDS,
                },
            )
            self._fs.retries = ATTEMPTS
            self._fs.s3.meta.events.register_last("before-call.s3", _expect_nothing)
            # A bucket that is not there looks like an empty tree to all other requests.
            self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{path}/" if path else "", MaxKeys=1)

    @property
    def shown(self) -> str:
        return self._url

    # -- reading ---------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return self._info(name) is not None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        what = f"read {self._url}/{name}"
        with _errors(what, missing="there is no such object"):
            file = self._fs.open(self._key(name), "rb", block_size=READ_BYTES)
        with io.BufferedReader(_Reader(file, what), READ_BYTES) as stream:
            yield stream

    def names(self, directory: str) -> dict[str, int]:
        return {name: info["size"] for name, info in self._listing(directory).items()}

    def _info(self, name: str) -> _Info | None:
        """Size and ETag of an object, None if there is none."""
        with _errors(f"look at {self._url}/{name}"):
            try:
                info: _Info = self._fs.info(self._key(name))
            except FileNotFoundError:
                return None
        return info if info["type"] == "file" else None

    def _listing(self, directory: str) -> dict[str, _Info]:
        """Name -> size and ETag of everything below a directory."""
        with _errors(f"list {self._url}/{directory}"):
            found: dict[str, _Info] = self._fs.find(self._key(directory), detail=True)
        # Some programs put an empty object in the place of each directory.
        return {key.removeprefix(f"{self._root}/"): info for key, info in found.items() if not key.endswith("/")}

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}"

    # -- changing --------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self, version: int) -> Iterator[Path]:
        shutil.rmtree(self._drafts, ignore_errors=True)
        directory = self._drafts / str(version)
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(self._drafts, ignore_errors=True)

    def publish(self, draft: Path, version: int, latest: Mapping[str, bytes], obsolete: Sequence[str]) -> None:
        files = {f"{version}/{name}": draft / name for name in files_below(draft)}
        there = self._listing(str(version))
        lacking = self._lacking(files, there)
        mom = layout.manifest(version, layout.MOM)
        # Without its MoM a version was never visible. With the same MoM, what is there besides was added to it.
        is_rebuilt = mom in lacking and mom in there
        strays = sorted(there.keys() - files.keys()) if mom in lacking else []
        if not is_rebuilt:
            self._remove(strays)
        of_the_mom = [f"{mom}.tar", layout.signature(mom), mom]
        for objects in (lacking - there.keys(), lacking & there.keys()):
            self._upload({name: files[name] for name in objects.difference(of_the_mom)})
        for name in of_the_mom:
            if name in lacking and not (is_rebuilt and name == mom):
                self._put(name, files[name])
        self._replace(latest)
        self._remove(obsolete)
        if is_rebuilt:
            self._remove(strays)
            self._put(mom, files[mom])

    def add(self, version: int, files: Sequence[Addition]) -> None:
        self._replace({f"{version}/{name}": source for name, source in files})

    def _lacking(self, files: Mapping[str, Path], there: Mapping[str, _Info]) -> set[str]:
        """The names of the files that are not there as they are here."""

        def is_there(name: str) -> bool:
            return name in there and self._is_same(name, files[name], there[name])

        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="compare") as pool:
            return {name for name, same in zip(files, pool.map(is_there, files), strict=True) if not same}

    def _is_same(self, name: str, source: Path | bytes, info: _Info) -> bool:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if info["size"] != size:
            return False
        if info.get("ETag", "").strip('"') == _digest(source, lambda: hashlib.md5(usedforsecurity=False)):
            return True
        with _errors(f"look at {self._url}/{name}"):
            metadata: Mapping[str, str] = self._fs.metadata(self._key(name))
        return metadata.get("sha256") == _digest(source, hashlib.sha256)

    def _replace(self, files: Mapping[str, Path | bytes]) -> None:
        """Upload the files that are not there as they are here: in the order given, and without a pause."""
        there = {name: self._info(name) for name in files}
        lacking = [name for name, info in there.items() if info is None or not self._is_same(name, files[name], info)]
        for name in lacking:
            self._put(name, files[name])

    def _upload(self, files: Mapping[str, Path]) -> None:
        """Many files at a time, the largest first."""
        sizes = {name: path.stat().st_size for name, path in files.items()}
        order = sorted(files, key=lambda name: (-sizes[name], name))
        done, total = 0, sum(sizes.values())
        for name in _all_at_once(lambda name: self._put(name, files[name]), order):
            done += sizes[name]
            self._report.progress(done, total)

    def _put(self, name: str, source: Path | bytes) -> None:
        headers = {
            "CacheControl": ASKED_FOR if _is_replaced(name) else CACHED,
            "ContentType": CONTENT_TYPE,
            "Metadata": {"sha256": _digest(source, hashlib.sha256)},
        }
        with _errors(f"upload {self._url}/{name}"):
            if isinstance(source, bytes):
                self._fs.pipe_file(self._key(name), source, chunksize=PART_BYTES, **headers)
            else:
                self._fs.put_file(str(source), self._key(name), chunksize=PART_BYTES, **headers)

    def _remove(self, names: Sequence[str]) -> None:
        def remove(name: str) -> None:
            with _errors(f"remove {self._url}/{name}"):
                self._fs.rm_file(self._key(name))

        for _ in _all_at_once(remove, names):
            pass


def _is_replaced(name: str) -> bool:
    """Whether a file gets other content under its name while its version stays what it is."""
    directory, _, _ = name.partition("/")
    if not directory.isdigit():
        return True
    version = int(directory)
    return name.removesuffix(".sig") in (layout.update_index(version), layout.checksums(version))


class _Reader(io.RawIOBase):
    """An object that is being read; whatever the library raises meanwhile is a BuildError."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _errors(self._what):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _expect_nothing(params: Mapping[str, Any], **_: object) -> None:
    """Send a body together with its head, without waiting for the answer 100 to that: there is no limit to this wait,
    because aiohttp counts the seconds from the end of the body."""
    params["headers"].pop("Expect", None)


def _all_at_once(work: Callable[[str], None], names: Iterable[str]) -> Iterator[str]:
    """Do something for each name, on CONNECTIONS threads; gives out each that is done. The first error ends it all."""
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="objects") as pool:
        running = {pool.submit(work, name): name for name in names}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _digest(source: Path | bytes, algorithm: Callable[[], Any]) -> str:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        return str(hashlib.file_digest(file, algorithm).hexdigest())


@contextmanager
def _errors(what: str, *, missing: str = "") -> Iterator[None]:
    """The errors of s3fs, aiobotocore, botocore, aiohttp and the system, which have no base class of their own.

    `missing` says what it means that something is not there; without it, that is the bucket.
    """
    try:
        yield
    except Exception as error:
        reason = _PASSWORD.sub("//", " ".join(str(error).split()))[:MAX_REASON] or type(error).__name__
        hint = "run it again when the cause is gone: what was uploaded is kept"
        if isinstance(error, PermissionError) or "credentials" in reason:
            hint = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE; docs/object-store.md lists the permissions"
        elif isinstance(error, FileNotFoundError):
            reason = missing or reason
            hint = "" if missing else "create the bucket, or name another one as `published` in builder.yaml"
        raise BuildError(f"cannot {what}: {reason}", hint=hint) from error
