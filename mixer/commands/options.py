"""What several commands read from their command lines: numbers within limits, and between which versions.

Values out of range raise BuildError with the name of the option.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mixer.errors import BuildError
from mixer.workspace import MAX_VERSION

if TYPE_CHECKING:
    from mixer.updates import Span


def add_span(parser: argparse.ArgumentParser) -> None:
    """The options that `span` reads."""
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--from", type=int, metavar="V", dest="from_version", help="from this version only")
    start.add_argument(
        "--previous-versions",
        type=int,
        metavar="N",
        help="from the N versions before (default: 1); a version of another format ends the row",
    )
    parser.add_argument("--to", type=int, metavar="V", dest="to_version", help="to this version (default: the newest)")


def span(args: argparse.Namespace) -> Span:
    """Between which versions."""
    from mixer.updates import Span

    return Span(
        to_version=number("--to", args.to_version, 1, MAX_VERSION) or 0,
        from_version=number("--from", args.from_version, 1, MAX_VERSION) or 0,
        previous_versions=number("--previous-versions", args.previous_versions, 1, MAX_VERSION) or 1,
    )


def number(option: str, value: int | None, minimum: int, maximum: int) -> int | None:
    """The value of an option; None if it was not given."""
    if value is not None and not minimum <= value <= maximum:
        raise BuildError(f"{option} must be between {minimum} and {maximum}, not {value}")
    return value
