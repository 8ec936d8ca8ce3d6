"""`make bench`: what matters to users in numbers, beside a goal or beside what others need for the same.

    python -m tests.bench [--data DIR] [--only PART,PART] [--json FILE]

    builds      two versions of an OS of real packages, the delta packs and the update pack between them
    client      installing, checking and updating that OS over HTTP; SWUPD_C=PROGRAM measures the original beside it
    large       the client on a machine with 450,000 paths
    synthetic   manifests of a mix of 450,000 files
    micro       parsing, hashing, starting

One table a part on standard output, progress on standard error. The first three need root, and Debian 12 with apt's
lists; what they are measured with is made in the data directory once. Seconds are those of this machine: compare
ratios, not runs on different machines. Each part runs in a process of its own (tests.bench.measure says why).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from swupd.errors import ProjectError
from tests.bench.measure import in_fresh_process, say
from tests.bench.parts import PARTS, WITH_PAIR, make_pair, rows_of
from tests.bench.rows import Row, printed

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure what the command line names; the exit status."""
    arguments = _arguments()
    data: Path = arguments.data.absolute()
    found: dict[str, list[Row]] = {}
    try:
        data.mkdir(parents=True, exist_ok=True)
        if WITH_PAIR.intersection(arguments.only):
            in_fresh_process(make_pair, data)
        for part in arguments.only:
            found[part] = in_fresh_process(rows_of, part, data)
            print(printed(part, found[part]), end="\n\n", flush=True)
    except ProjectError as error:
        say(f"bench: {error}" + (f" ({error.hint})" if error.hint else ""))
        return 1
    except OSError as error:
        say(f"bench: {error}")
        return 1
    if arguments.json is not None:
        arguments.json.write_text(_as_json(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure mixer and swupd.")
    parser.add_argument(
        "--data", type=Path, default=REPOSITORY / ".bench", metavar="DIR", help="where data is made (default: .bench)"
    )
    parser.add_argument(
        "--only", type=_parts, default=PARTS, metavar="PARTS", help=f"some of {','.join(PARTS)} (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    return parser.parse_args()


def _parts(text: str) -> Sequence[str]:
    chosen = text.split(",")
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    return [part for part in PARTS if part in chosen]


def _as_json(found: dict[str, list[Row]]) -> str:
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    rows = {
        part: [{**asdict(row), "ratio": row.ratio, "is_reached": row.is_reached} for row in rows]
        for part, rows in found.items()
    }
    return json.dumps({"machine": machine, "parts": rows}, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
