"""SOURCE_DATE_EPOCH: the environment's word for when what is built is said to be made."""

from __future__ import annotations

from collections.abc import Mapping

from mixer.errors import BuildError
from swupd.formats.manifest import TIMESTAMP_LIMIT

VARIABLE = "SOURCE_DATE_EPOCH"


def source_date(environ: Mapping[str, str]) -> int | None:
    """The time in seconds since 1970; None if it is not said. Raises BuildError for what is no time."""
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    if (
        not (text.isascii() and text.isdigit() and len(text) <= len(str(TIMESTAMP_LIMIT)))
        or int(text) > TIMESTAMP_LIMIT
    ):
        raise BuildError(
            f"{VARIABLE} is {text!r}, not a time in seconds since 1970",
            hint="unset it, or give it such as `date +%s` prints",
        )
    return int(text)
