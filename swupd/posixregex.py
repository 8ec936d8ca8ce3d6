"""POSIX extended regular expressions, as options take them, translated for Python (specification sections 5.12, 6.2).

What means something else in Python is translated: classes such as `[:alpha:]`, and brackets, in which a backslash is
a character like any other. What only Python knows (`\\d`, lazy repetitions) is not refused. Where POSIX finds the
longest match Python finds the first one; for the question whether anything matches that is the same.

An expression can be written so that matching takes for ever. It harms nobody but who wrote it, and a signal interrupts
it; the length has a limit all the same.
"""

from __future__ import annotations

import re

from swupd.errors import UsageError

PATTERN_LIMIT = 1000
"""Characters."""

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_TOKEN = re.compile(r"\\.|\[(?P<negated>\^?)(?P<items>\]?(?:\[:[a-z]+:\]|[^\]])*)\]|.", re.DOTALL)
_ITEM = re.compile(r"\[:(?P<name>[a-z]+):\]|(?P<special>(?<=-)-|[\\\[\]&~|^])|.", re.DOTALL)


def compile_extended(pattern: str, what: str, *, example: str, ignore_case: bool = False) -> re.Pattern[str]:
    """Translate and compile; UsageError, which says `what` the pattern is and gives an `example`, if it is none."""
    if len(pattern) > PATTERN_LIMIT:
        raise UsageError(
            f"{what} is longer than the {PATTERN_LIMIT} characters that it may have", hint=f"an example: {example}"
        )
    try:
        return re.compile(_TOKEN.sub(_translated, pattern), re.IGNORECASE if ignore_case else 0)
    except (re.error, KeyError, OverflowError, RecursionError) as error:
        reason = f"there is no class {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"{what} {pattern!r} is not a regular expression: {reason}", hint=f"an example: {example}"
        ) from error


def _translated(token: re.Match[str]) -> str:
    items = token["items"]
    if items == "" or token[0] == "[":
        raise re.error("unterminated bracket")
    if items is None:
        return token[0]
    return f"[{token['negated']}{_ITEM.sub(_item, items)}]"


def _item(item: re.Match[str]) -> str:
    if item["name"] is not None:
        return _CLASSES[item["name"]]
    return f"\\{item[0]}" if item["special"] else item[0]
