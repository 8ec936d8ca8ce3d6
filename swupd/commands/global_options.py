"""The options that every subcommand shares (specification section 6.1), and the types of option values.

Names in the parsed namespace are the long option names with `_` for `-`; an option that was not given is None (False
for a flag), so that `swupd.settings` can tell it from one that was.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

MAX_PORT = 65535
MAX_RETRY_DELAY_SECONDS = 60
MAX_CACHE_DAYS = 36500
SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
LATEST = "latest"


def add_global_options(parser: ArgumentParser) -> None:
    """Give a subcommand's parser the global options."""
    add_system_options(parser)
    add_server_options(parser)
    add_action_options(parser)
    add_output_options(parser)


def add_system_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("system to work on")
    group.add_argument("-p", "--path", type=Path, metavar="DIR", help="root directory of the system (default: /)")
    group.add_argument(
        "-S", "--statedir", type=absolute_path, metavar="DIR", help="directory for cache and data (sets both)"
    )
    group.add_argument(
        "-K", "--cachedir", type=absolute_path, metavar="DIR", help="directory for downloads (default: /var/lib/swupd)"
    )
    group.add_argument(
        "-Z",
        "--datadir",
        type=absolute_path,
        metavar="DIR",
        help="directory for the lock and the list of wanted bundles (default: var/lib/swupd below --path)",
    )
    group.add_argument(
        "--cache-limit", type=size, metavar="SIZE", help="bytes that downloads may keep on the disk, such as 500M or 2G"
    )
    group.add_argument(
        "--cache-days", type=number(0, MAX_CACHE_DAYS), metavar="N", help="days that unused downloads are kept"
    )
    group.add_argument(
        "-F", "--format", type=format_name, metavar="N", help="format of the content: a number or 'staging'"
    )


def add_server_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("-u", "--url", metavar="URL", help="URL of the published tree, for versions and content")
    group.add_argument("-c", "--contenturl", metavar="URL", help="URL for content only")
    group.add_argument("-v", "--versionurl", metavar="URL", help="URL for version files only")
    group.add_argument("-P", "--port", type=number(1, MAX_PORT), metavar="N", help="TCP port for every request")
    group.add_argument("-C", "--certpath", type=Path, metavar="FILE", help="certificate that signatures must lead to")
    group.add_argument("-n", "--nosigcheck", action="store_true", help="do not check any signature (dangerous)")
    group.add_argument(
        "--nosigcheck-latest", action="store_true", help="do not check the signature of the latest version number"
    )
    group.add_argument("--allow-insecure-http", action="store_true", help="permit URLs that begin with http://")
    group.add_argument(
        "-W",
        "--max-parallel-downloads",
        type=number(1, 1000),
        metavar="N",
        help="downloads at the same time (default: 15)",
    )
    group.add_argument(
        "-r", "--max-retries", type=number(0, 1000), metavar="N", help="repetitions of a failed download (default: 3)"
    )
    group.add_argument(
        "-d",
        "--retry-delay",
        type=number(0, MAX_RETRY_DELAY_SECONDS),
        metavar="SECONDS",
        help="wait before the first repetition, doubled each time (default: 10)",
    )
    group.add_argument(
        "--limit-rate", type=size, metavar="RATE", help="bytes per second that downloads may take, such as 500k or 2M"
    )
    group.add_argument("--offline", action="store_true", help="ask no server: use what was downloaded before")


def add_action_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("how it is done")
    group.add_argument("-I", "--ignore-time", action="store_true", help="do not check the system clock")
    group.add_argument("-N", "--no-scripts", action="store_true", help="do not run post-update actions")
    group.add_argument("-b", "--no-boot-update", action="store_true", help="do not run the boot manager")
    group.add_argument("--wait-for-scripts", action="store_true", help="wait until post-update actions have ended")
    group.add_argument("-y", "--yes", dest="assume", action="store_const", const=True, help="answer yes to questions")
    group.add_argument(
        "--assume", type=yes_or_no, metavar="yes|no", help="answer to questions (without this option: no)"
    )


def add_output_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-h", "--help", action="help", help="show this help")
    group.add_argument("-j", "--json-output", action="store_true", help="print a stream of JSON objects")
    group.add_argument("--quiet", action="store_true", help="print results and errors only")
    group.add_argument("--verbose", action="store_true", help="print more")
    group.add_argument("--debug", action="store_true", help="print everything, with times")
    group.add_argument("--no-progress", action="store_true", help="do not print percentages")
    group.add_argument("-t", "--time", action="store_true", help="print how long each step took")


# -- types of values: each raises ArgumentTypeError with a sentence that names what was expected


def number(least: int, most: int) -> Callable[[str], int]:
    """A whole number within two bounds."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
            raise ArgumentTypeError(f"'{text}' is not a number from {least} to {most}")
        return int(text)

    return parse


MAX_VERSION = (1 << 31) - 1
version_number = number(1, MAX_VERSION)


def version_or_latest(text: str) -> int | None:
    """A version; None stands for the newest one of the server."""
    return None if text == LATEST else version_number(text)


def absolute_path(text: str) -> Path:
    if not text.startswith("/"):
        raise ArgumentTypeError(f"'{text}' is not an absolute path")
    return Path(text)


def format_name(text: str) -> str:
    if text == "staging":
        return text
    return str(number(1, MAX_VERSION)(text))


def size(text: str) -> int:
    """Bytes: a number, with k, M, G or T behind it for thousands, millions and so on."""
    digits = text.rstrip("kKmMgGtT")
    unit = SIZE_UNITS.get(text[len(digits) :].lower())
    if unit is None or not digits.isascii() or not digits.isdigit() or len(digits) > 15 or int(digits) == 0:
        raise ArgumentTypeError(f"'{text}' is not a size such as 1000, 500k, 2M or 1G")
    return int(digits) * unit


def yes_or_no(text: str) -> bool:
    if text not in ("yes", "no", "y", "n"):
        raise ArgumentTypeError(f"'{text}' is not yes or no")
    return text.startswith("y")


def bundle_list(text: str) -> tuple[str, ...]:
    """Bundle names separated by commas."""
    names = tuple(name for name in text.split(",") if name)
    if not names:
        raise ArgumentTypeError("a list of bundles separated by commas is needed")
    return names
