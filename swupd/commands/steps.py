"""The steps of a command: their names and numbers in the JSON stream (specification section 6.7)."""

from __future__ import annotations

from collections.abc import Sequence

from swupd.report import Report

PACKS = "download_packs"
VALIDATE = "validate_fullfiles"


class Steps:
    """Announces steps by name; a step that does nothing this time is left out, the numbers of the others stay."""

    def __init__(self, report: Report, names: Sequence[str]) -> None:
        self._report = report
        self._numbers = {name: number for number, name in enumerate(names, start=1)}

    def __call__(self, name: str, text: str) -> None:
        """Begin the step `name`; people read `text`."""
        if name == VALIDATE and PACKS in self._numbers:
            # What is staged already is looked at before the packs; a stream whose numbers go back would confuse.
            self._report.verbose(text)
        else:
            self._report.step(name, text, self._numbers[name], len(self._numbers))
