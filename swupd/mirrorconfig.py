"""The administrator's mirrors, `/etc/swupd/mirror_versionurl` and `mirror_contenturl` below the root (section 6.2).

They change only here and only when somebody asks for it: a mirror that is stale or does not answer is warned of, never
removed. A file is replaced in one step and on disk before `write` returns; links on the way are not followed. A single
URL has no line end, as the original writes it; of several the preferred one is first, which is the one that it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from swupd.errors import ProjectError, ServerError, StateDirectoryError, UsageError
from swupd.formats import layout
from swupd.fs import Directory
from swupd.network.fetch import Fetcher
from swupd.report import Report
from swupd.settings import MAX_MIRRORS, MIRROR_CONTENT_URL_FILE, MIRROR_VERSION_URL_FILE, Settings, check_url
from swupd.trust import Verifier
from swupd.versions import Versions

_TOP = "etc"
_DIRECTORY = "swupd"
_UNTRIED = "nothing was changed; to set it without trying it add --offline"


def checked(texts: Sequence[str], source: str, *, allow_http: bool) -> tuple[str, ...]:
    """URLs that can be mirrors, each once; UsageError, naming `source`, for others."""
    urls = tuple(dict.fromkeys(check_url(text, source) for text in texts))
    if len(urls) > MAX_MIRRORS:
        raise UsageError(f"{source}: more than {MAX_MIRRORS} URLs", hint="leave some of them out")
    for url in urls:
        if url.startswith("http:") and not allow_http:
            raise UsageError(
                f"{source}: {url} is not encrypted", hint="use a https:// URL, or permit it with --allow-insecure-http"
            )
    return urls


def ask(settings: Settings, report: Report, version_urls: Sequence[str], content_urls: Sequence[str]) -> None:
    """Raise what it fails with unless every mirror has our format's newest version, properly signed."""
    newest = min(
        _newest(replace(settings, version_url=url, version_mirrors=()), report)
        for url in version_urls or [settings.version_url]
    )
    for content_url in content_urls:
        only = replace(settings, content_url=content_url, content_mirrors=())
        url = f"{content_url}/{layout.manifest_tar(newest, layout.MOM)}"
        with Fetcher(only, report) as fetcher:
            try:
                fetcher.get(url, limit=fetcher.limits.manifest_bytes, uncached=True)
            except ServerError as error:
                raise type(error)(f"the content URL does not have version {newest}: {error}", hint=_UNTRIED) from error


def _newest(settings: Settings, report: Report) -> int:
    try:
        with Fetcher(settings, report) as fetcher:
            return Versions(settings, fetcher, Verifier(settings, report), report).in_format()[0]
    except ProjectError as error:
        raise type(error)(str(error), hint=f"{error.hint or 'check the URL'}; {_UNTRIED}") from error


def write(root: Path, version_urls: Sequence[str], content_urls: Sequence[str]) -> None:
    """Make these the mirrors; an empty list leaves its file as it is. Raises StateDirectoryError, UnsafePathError."""
    try:
        with Directory.open(root) as top:
            with suppress(FileExistsError):
                top.make_directory(_TOP)
            with top.descend(_TOP) as etc, suppress(FileExistsError):
                etc.make_directory(_DIRECTORY)
            with top.descend(f"{_TOP}/{_DIRECTORY}") as directory:
                for path, urls in ((MIRROR_VERSION_URL_FILE, version_urls), (MIRROR_CONTENT_URL_FILE, content_urls)):
                    if urls:
                        _replace(directory, Path(path).name, "\n".join(urls) + ("\n" if len(urls) > 1 else ""))
                directory.sync_names()
    except OSError as error:
        raise _failure("write", root, error) from error


def remove(root: Path) -> None:
    """Forget the mirrors; what is not there is fine. Raises StateDirectoryError, UnsafePathError."""
    try:
        with Directory.open(root) as top, top.descend(f"{_TOP}/{_DIRECTORY}") as directory:
            for path in (MIRROR_VERSION_URL_FILE, MIRROR_CONTENT_URL_FILE):
                with suppress(FileNotFoundError):
                    directory.unlink(Path(path).name)
            directory.sync_names()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure("remove", root, error) from error


def _replace(directory: Directory, name: str, text: str) -> None:
    temporary = f".{name}.new"
    with suppress(FileNotFoundError):
        directory.unlink(temporary)
    directory.write_file(temporary, [text.encode()], mode=0o644, durable=True)
    directory.rename(temporary, name)


def _failure(what: str, root: Path, error: OSError) -> StateDirectoryError:
    return StateDirectoryError(
        f"cannot {what} the mirror files in {root}/{_TOP}/{_DIRECTORY}: {error.strerror}",
        hint="check the directory and its file system",
    )
