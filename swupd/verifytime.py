"""The program `verifytime`: the check of the clock that swupd begins with, on its own (swupd client specification, 5.1
step 7, and 6.9).

A machine without a battery wakes up in 1970, and no certificate is valid then. Early in the boot this program sets a
clock that is earlier than the build of the running system to that time. Exit status: 0 it was right or is now, 1 not.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from swupd.errors import ExitCode, ProjectError
from swupd.report import TextReport, show_error
from swupd.statedir import DEFAULT, StateDir
from swupd.system import System


def main() -> int:
    """Check the clock of the running system and return the exit status."""
    report = TextReport()
    system = System(Path("/"), StateDir(Path(DEFAULT), Path(DEFAULT), ""))
    try:
        moved_to = system.check_clock()
    except ProjectError as error:
        show_error(report, error)
        return ExitCode.NO
    if moved_to is not None:
        report.info(f"The clock was far behind; it was set to {time.ctime(moved_to)}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
