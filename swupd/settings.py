"""What a command works with: paths, URLs, format and limits (swupd client specification, sections 5.1 and 6.1).

`resolve` brings together, the first one that is given wins: the options of the command (which the configuration files
have already been merged into), the files of the system that is worked on, the same files of the host, and the defaults
below. It only reads; nothing is created, contacted or printed. The result never changes afterwards.

* URLs are taken literally: surrounding white space and trailing slashes removed, no expansion.
* The administrator's mirror files may have several lines, one URL each, the preferred one first: the others are asked
  when it fails. The original reads the first line and so uses the same one. Nothing else is asked beside them, and an
  option replaces the whole list. Vendor files have one line.
* The cache is named after the first content URL, whichever mirror answers.
* The certificate is the host's, never one of the system that is worked on: it decides whom that system trusts.
* State directories are resolved through links here, once, so that later checks speak about the real place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload
from urllib.parse import urlsplit

from swupd.errors import UsageError
from swupd.formats import layout
from swupd.statedir import DEFAULT as DEFAULT_STATE_DIR
from swupd.statedir import check_location

DEFAULT_FORMAT = "30"
"""The first format that a builder publishes; only for a system whose files say nothing, such as one still empty."""
DEFAULT_PARALLEL = 15
DEFAULT_RETRIES = 3
DEFAULT_RETRY_SECONDS = 10

MAX_PARALLEL = 64
"""Threads; a larger --max-parallel-downloads is served by this many."""
MAX_RETRIES = 1000
MAX_RETRY_SECONDS = 60
MAX_PORT = 65535
LINE_LIMIT = 4096
"""Bytes that are read of a line."""
MAX_MIRRORS = 16
"""URLs in one file."""
MAX_BYTES = 1 << 60
"""Of a size or rate; larger ones are typing errors."""
MAX_DAYS = 36500

MIRROR_VERSION_URL_FILE = "/etc/swupd/mirror_versionurl"
MIRROR_CONTENT_URL_FILE = "/etc/swupd/mirror_contenturl"
CLIENT_CERTIFICATE_FILE = "/etc/swupd/client.pem"
FALLBACK_CA_VARIABLE = "SWUPD_FALLBACK_CAPATHS"
SCHEMES = ("https", "http", "file")


@dataclass(frozen=True)
class Settings:
    """All that was decided about one run. Paths are absolute and resolved."""

    root: Path
    cache_dir: Path
    data_dir: Path
    content_url: str
    """Empty if unknown, like `version_url`; commands that need the network call `require_urls` first."""
    version_url: str
    format: str
    """A positive number or "staging"."""
    certificate: Path
    port: int | None = None
    parallel: int = DEFAULT_PARALLEL
    max_retries: int = DEFAULT_RETRIES
    retry_delay: float = DEFAULT_RETRY_SECONDS
    """Seconds before the first retry; doubled for each further one."""
    check_signatures: bool = True
    check_latest_signature: bool = True
    ignore_time: bool = False
    run_scripts: bool = True
    update_boot: bool = True
    wait_for_scripts: bool = False
    allow_insecure_http: bool = False
    assume: bool | None = None
    """The answer to every question; None asks, and without a terminal means no."""
    content_mirrors: tuple[str, ...] = ()
    """Other URLs with the same content, in the order in which they are asked when `content_url` fails."""
    version_mirrors: tuple[str, ...] = ()
    """The same for `version_url`."""
    offline: bool = False
    """Ask no server; what the cache does not have cannot be had."""
    limit_rate: int | None = None
    """Bytes per second of all downloads together."""
    cache_limit: int | None = None
    """Bytes that the cache may have when a command is over."""
    cache_days: int | None = None
    """Days that an object which nobody needs stays in the cache."""
    fallback_ca_paths: tuple[Path, ...] = ()
    """Files with certificates, or directories of them with the hashed names of `openssl rehash`."""
    snapshot_of: Path | None = None
    """The system that the root is a snapshot of, for its next boot: nobody lives in it, all of it is the OS's."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What the user should hear about these settings before anything is done."""

    @property
    def is_snapshot(self) -> bool:
        return self.snapshot_of is not None

    @property
    def machine(self) -> Path:
        """Where the administrator's files are: the root itself, unless that is a snapshot."""
        return self.snapshot_of or self.root

    def require_urls(self) -> None:
        """Raise UsageError unless both URLs are known."""
        for url, what, option in (
            (self.version_url, "version", "versionurl"),
            (self.content_url, "content", "contenturl"),
        ):
            if not url:
                raise UsageError(
                    f"the {what} URL is not known: neither an option nor {layout.DEFAULTS}/{option} gives it",
                    hint=f"give the server with --url, or --{option}",
                )


def resolve(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Decide the settings of a command.

    options: long names with `_` for `-`; values as the command line types them, None (False for a flag) if not given.
    `without_mirrors`, which is no option of the command line, leaves the mirror files unread: for who replaces them.
    Raises UsageError for a value that cannot be used, whether an option or a file has it.
    """
    root = _real(options.get("path") or "/")
    both = options.get("statedir")
    cache_dir = _state_dir(options.get("cachedir") or both or DEFAULT_STATE_DIR, root)
    data_dir = _state_dir(options.get("datadir") or both or root / DEFAULT_STATE_DIR.lstrip("/"), root)
    check_signatures = not options.get("nosigcheck")
    content_urls = _urls(options, "contenturl", root, MIRROR_CONTENT_URL_FILE, layout.CONTENT_URL_FILE)
    version_urls = _urls(options, "versionurl", root, MIRROR_VERSION_URL_FILE, layout.VERSION_URL_FILE)
    return Settings(
        root=root,
        cache_dir=cache_dir,
        data_dir=data_dir,
        content_url=content_urls[0] if content_urls else "",
        version_url=version_urls[0] if version_urls else "",
        format=_format(options.get("format"), root),
        certificate=Path(os.path.abspath(options.get("certpath") or layout.CERTIFICATE)),
        port=_number(options, "port", None, 1, MAX_PORT),
        parallel=min(_number(options, "max_parallel_downloads", DEFAULT_PARALLEL, 1), MAX_PARALLEL),
        max_retries=_number(options, "max_retries", DEFAULT_RETRIES, 0, MAX_RETRIES),
        retry_delay=_number(options, "retry_delay", DEFAULT_RETRY_SECONDS, 0, MAX_RETRY_SECONDS),
        check_signatures=check_signatures,
        check_latest_signature=check_signatures and not options.get("nosigcheck_latest"),
        ignore_time=bool(options.get("ignore_time")),
        run_scripts=not options.get("no_scripts"),
        update_boot=not options.get("no_boot_update"),
        wait_for_scripts=bool(options.get("wait_for_scripts")),
        allow_insecure_http=bool(options.get("allow_insecure_http")),
        assume=options.get("assume"),
        content_mirrors=content_urls[1:],
        version_mirrors=version_urls[1:],
        offline=bool(options.get("offline")),
        limit_rate=_number(options, "limit_rate", None, 1, MAX_BYTES),
        cache_limit=_number(options, "cache_limit", None, 0, MAX_BYTES),
        cache_days=_number(options, "cache_days", None, 0, MAX_DAYS),
        fallback_ca_paths=tuple(Path(part) for part in environ.get(FALLBACK_CA_VARIABLE, "").split(":") if part),
        warnings=tuple(_warnings(options, root)),
    )


def first_line(path: Path) -> str | None:
    """The first line of a small text file without surrounding white space; None if there is nothing to read.

    Raises UsageError if there is a file that cannot be read.
    """
    lines = _lines(path, 1)
    return lines[0] if lines and lines[0] else None


def mirror_list(path: Path) -> tuple[str, ...]:
    """The URLs of a mirror file, the preferred one first; none if the file is missing or its first line is empty.

    Empty lines and those that begin with `#` are skipped after the first one. Raises UsageError for a line that is no
    URL, and for more than MAX_MIRRORS.
    """
    lines = _lines(path, MAX_MIRRORS * 4)
    if not lines or not lines[0]:
        return ()
    texts = [lines[0], *(line for line in lines[1:] if line and not line.startswith("#"))]
    if len(texts) > MAX_MIRRORS:
        raise UsageError(f"{path} has more than {MAX_MIRRORS} URLs", hint="remove some of them")
    return tuple(dict.fromkeys(check_url(text, str(path)) for text in texts))


def _lines(path: Path, most: int) -> list[str]:
    """The first lines of a text file without surrounding white space."""
    try:
        with path.open("rb") as file:
            lines = [file.readline(LINE_LIMIT) for _ in range(most)]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the file and its permissions") from error
    return [os.fsdecode(line).strip() for line in lines]


def below(root: Path, path: str) -> Path:
    """An absolute path of an installed system, as a path of this one."""
    return root / path.lstrip("/")


def check_format(text: str, source: str) -> str:
    """A format in its one spelling; UsageError, naming `source`, if it is none."""
    if text == layout.STAGING_FORMAT:
        return text
    if text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31:
        return str(int(text))
    raise UsageError(
        f"{source}: '{text}' is not a format", hint=f"a format is a positive number or '{layout.STAGING_FORMAT}'"
    )


def check_url(text: str, source: str) -> str:
    """A URL without trailing slashes; UsageError, naming `source`, if it is none that could be used."""
    url = text.strip().rstrip("/")
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in SCHEMES or not rest or not url.isprintable() or not _has_sound_host(url):
        raise UsageError(f"{source}: '{text}' is not a URL", hint="a URL begins with https://, http:// or file:///")
    if "?" in rest or "#" in rest:
        raise UsageError(f"{source}: '{text}' contains '?' or '#'", hint="give the directory that holds the versions")
    return url


def _has_sound_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.hostname in (None, "localhost") if parts.scheme == "file" else bool(parts.hostname)


def _real(path: Path | str) -> Path:
    return Path(os.path.realpath(path))


def _state_dir(path: Path | str, root: Path) -> Path:
    if not os.path.isabs(path):
        raise UsageError(f"the state directory {path} is not an absolute path", hint="begin the path with /")
    real = _real(path)
    check_location(real, root)
    return real


def _urls(options: Mapping[str, Any], option: str, root: Path, mirror_file: str, default_file: str) -> tuple[str, ...]:
    for name in (option, "url"):
        if options.get(name):
            return (check_url(options[name], f"--{name}"),)
    if not options.get("without_mirrors") and (urls := mirror_list(below(root, mirror_file))):
        return urls
    for path in (below(root, default_file), Path(default_file)):
        line = first_line(path)
        if line is not None:
            return (check_url(line, str(path)),)
    return ()


def _format(option: str | None, root: Path) -> str:
    if option:
        return check_format(str(option), "--format")
    for path in (below(root, layout.FORMAT_FILE), Path(layout.FORMAT_FILE)):
        line = first_line(path)
        if line is not None:
            return check_format(line, str(path))
    return DEFAULT_FORMAT


@overload
def _number(options: Mapping[str, Any], name: str, default: int, least: int, most: int = ...) -> int: ...


@overload
def _number(options: Mapping[str, Any], name: str, default: None, least: int, most: int = ...) -> int | None: ...


def _number(options: Mapping[str, Any], name: str, default: int | None, least: int, most: int = 1 << 31) -> int | None:
    value = options.get(name)
    if value is None:
        return default
    if not least <= value <= most:
        raise UsageError(f"--{name.replace('_', '-')} {value} is not between {least} and {most}", hint="see --help")
    return int(value)


def _warnings(options: Mapping[str, Any], root: Path) -> list[str]:
    warnings = [
        f"{what} URL {options[name]} is used instead of the configured one"
        for name, what in (("url", "the"), ("contenturl", "the content"), ("versionurl", "the version"))
        if options.get(name)
    ]
    certificate = below(root, CLIENT_CERTIFICATE_FILE)
    with suppress(OSError):
        if certificate.stat().st_mode & 0o007:
            warnings.append(f"the private key in {certificate} is open to everybody: chmod 600 {certificate}")
    return warnings
