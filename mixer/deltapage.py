"""The page of `mixer report delta --html`: what updates cost, as tables and as a map whose areas are bytes.

What is guaranteed of a page:

* It is one file that needs nothing else: no script, no font, no image. Its policy lets a browser run or fetch nothing.
* Whatever stands in a report is shown as text: all of it is escaped, and characters that cannot be seen or that turn
  the direction of writing are replaced. The page is well-formed XML.
* It stays small: what has less than SMALL_PART of a map is merged with its like, so the largest update has a few
  thousand boxes. The table of files has as many as the caller asks for.
* The same reports give the same page.

A map shows the bundles, in them the directories of two levels, in them the files; colours tell how a file is fetched.
An object that several bundles need is shown in the first one. Areas are bytes, but for strips with names. Pure.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum

from mixer.deltareport import (
    Kind,
    Member,
    Pack,
    UpdateReport,
    bundle_rows,
    file_rows,
    files_title,
    shown_bundles,
    shown_size,
    total_rows,
)
from mixer.treemap import Box, squarified
from swupd.report import counted, human_size

SMALL_PART = 1 / 2000
"""Of a map: what is smaller has no box of its own."""

_MAP = Box(0.0, 0.0, 1200.0, 720.0)
_HEADING = 15.0
"""Height of the strip with the name of a bundle or directory."""
_CHARACTER = 6.4
_LINE = 12.0
"""Width and height of a label's characters, roughly."""
_SHOWN_CHARACTERS = 5
"""A label that has room for fewer is left out."""


class Style(Enum):
    """How files are coloured: the class in the page, and what it means."""

    DELTA = "delta", "a delta"
    GZIP = "gzip", "a delta between the contents of gzip files"
    WHOLE = "whole", "whole, although there is an older file: a delta would not be smaller, or is not worth it"
    NEW = "new", "whole: nothing like it in the older version"

    @classmethod
    def of(cls, member: Member) -> Style:
        if member.kind is Kind.FULL:
            return cls.NEW if member.old_path is None else cls.WHOLE
        return cls.GZIP if member.kind is Kind.GZIP_DELTA else cls.DELTA

    @property
    def css(self) -> str:
        return self.value[0]

    @property
    def meaning(self) -> str:
        return self.value[1]


def page(updates: Sequence[UpdateReport], limit: int) -> bytes:
    """The page of some updates, with the `limit` most expensive files of each in a table; 0 for all of them."""
    title = f"Updates to version {updates[0].to_version}" if updates else "Updates"
    body = "".join(_update(update, limit) for update in updates)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    ).encode()


def _update(update: UpdateReport, limit: int) -> str:
    heading = f"<h2>From version {update.from_version} to version {update.to_version}</h2>\n"
    parts = [f"<section>{heading}"]
    if update.pack is None:
        parts.append("<p>There is nothing to fetch.</p>\n")
    else:
        parts.append(_table(("all bundles by", "bytes"), total_rows(update), numbers={1}))
        parts.append(_legend(update.pack))
        parts.append(_map(update.pack))
        columns = ("bundle", "pack", "deltas", "objects", "fullfiles", "zero pack")
        parts.append("<h3>Bundles</h3>\n" + _table(columns, bundle_rows(update), numbers={1, 2, 3, 4, 5}))
    if update.new_bundles:
        new = (f"{new.bundle} ({shown_size(new.zero_pack)})" for new in update.new_bundles)
        parts.append(f"<p>New bundles, and the size of their zero packs: {_text(', '.join(new))}</p>\n")
    if update.pack is not None:
        columns = ("cost", "content", "kind", "bundle", "path", "why")
        parts.append(f"<h3>{_text(files_title(update.pack, limit))}</h3>\n")
        parts.append(_table(columns, file_rows(update.pack.members[: limit or None]), numbers={0, 1}))
    return "".join((*parts, "</section>\n"))


def _legend(pack: Pack) -> str:
    items = []
    for style in Style:
        members = [member for member in pack.members if Style.of(member) is style]
        if members:
            size = human_size(sum(member.share for member in members))
            what = f"{style.meaning}: {counted(len(members), 'file')}, {size}"
            items.append(f'<li><i class="{style.css}"></i>{what}</li>')
    size = shown_size(pack.bytes, is_exact=pack.is_published)
    explanation = (
        f"The map shows {pack.file}, {size}. Areas are bytes. A pack is one compressed stream, in which a file has no "
        "size of its own: its cost is what it has compressed alone, scaled to the size of the pack."
    )
    return f"<p>{_text(explanation)}</p>\n<ul>{''.join(items)}</ul>\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int]) -> str:
    """All cells are text; columns of numbers are set to the right."""

    def row(cells: Sequence[str], tag: str) -> str:
        marks = (' class="n"' if column in numbers else "" for column in range(len(cells)))
        inside = (f"<{tag}{mark}>{_text(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))
        return f"<tr>{''.join(inside)}</tr>\n"

    head, body = row(columns, "th"), "".join(row(cells, "td") for cells in rows)
    return f'<div class="t"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>\n'


# -- the map -----------------------------------------------------------------------------------------------------------


def _map(pack: Pack) -> str:
    small = int(SMALL_PART * sum(member.share for member in pack.members))
    parts = [
        f'<svg viewBox="0 0 {_MAP.width:.0f} {_MAP.height:.0f}" role="img" aria-label="Map of {_text(pack.file)}">'
    ]
    bundles = _groups(pack.members, lambda member: member.bundles[0], "other bundles", small)
    for (bundle, of_bundle), outer in _placed(bundles, _MAP):
        parts.append(_box(outer, "bundle", bundle, [f"{bundle}: {_sum(of_bundle)}"], heading=True))
        directories = _groups(of_bundle, _top_directory, "other directories", small)
        for (directory, of_directory), middle in _placed(directories, _inside(outer)):
            parts.append(_box(middle, "directory", directory, [f"{directory}: {_sum(of_directory)}"], heading=True))
            for files, inner in _placed(_files(of_directory, small), _inside(middle)):
                parts.append(_file_box(inner, *files))
    return "".join((*parts, "</svg>\n"))


def _groups(
    members: Iterable[Member], key: Callable[[Member], str], others: str, small: int
) -> list[tuple[str, list[Member]]]:
    """The members by a key; those of small groups together, as `others`, if these are several."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(key(member), []).append(member)
    little = [name for name, group in groups.items() if sum(member.share for member in group) < small]
    if len(little) > 1:
        groups[others] = [member for name in little for member in groups.pop(name)]
    return list(groups.items())


def _files(members: Sequence[Member], small: int) -> list[tuple[str, list[Member]]]:
    """The large files one by one, the small ones of each style together."""
    found = [(member.path.rpartition("/")[2], [member]) for member in members if member.share >= small]
    for style in Style:
        little = [member for member in members if member.share < small and Style.of(member) is style]
        if len(little) > 1:
            found.append((f"{len(little)} smaller files", little))
        else:
            found += [(member.path.rpartition("/")[2], [member]) for member in little]
    return found


def _top_directory(member: Member) -> str:
    """The directory of a file, of two levels at most."""
    return "/" + "/".join(member.path.split("/")[1:-1][:2])


def _placed(groups: list[tuple[str, list[Member]]], box: Box) -> Iterator[tuple[tuple[str, list[Member]], Box]]:
    weights = [sum(member.share for member in group) for _, group in groups]
    return zip(groups, squarified(weights, box), strict=True)


def _inside(box: Box) -> Box:
    """Where the parts of a group are."""
    return box.inset(1.0, _HEADING if _has_heading(box) else 1.0)


def _has_heading(box: Box) -> bool:
    return box.height >= 2 * _HEADING and box.width >= _SHOWN_CHARACTERS * _CHARACTER


def _sum(members: Sequence[Member]) -> str:
    return f"{counted(len(members), 'file')}, {human_size(sum(member.share for member in members))}"


def _file_box(box: Box, name: str, members: Sequence[Member]) -> str:
    style = Style.of(members[0])
    if len(members) > 1:
        return _box(box, style.css, name, [_sum(members), style.meaning])
    member = members[0]
    cost = f"{human_size(member.share)} of {human_size(member.size)}"
    return _box(
        box, style.css, name, [member.path, cost, f"{member.kind}: {member.why}", shown_bundles(member.bundles)]
    )


def _box(box: Box, css: str, label: str, tooltip: Iterable[str], *, heading: bool = False) -> str:
    """A rectangle; the lines of `tooltip` appear when the pointer rests on it."""
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    title = "&#10;".join(map(_text, tooltip))
    drawn = f'<rect class="{css}" {place}><title>{title}</title></rect>'
    room = int((box.width - _CHARACTER) / _CHARACTER)
    if room < _SHOWN_CHARACTERS or box.height < _LINE or (heading and not _has_heading(box)):
        return drawn
    shown = label if len(label) <= room else f"{label[: room - 1]}…"
    return f'{drawn}<text x="{box.x + 3:.1f}" y="{box.y + 11:.1f}">{_text(shown)}</text>'


def _text(value: str) -> str:
    return html.escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value))


_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --line: #c9ced6; --group: #eceff3; --part: #f7f8fa;
  --delta: #8fd0b0; --gzip: #95c3ef; --whole: #f09f8d; --new: #f3cf7a; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e8eaed; --line: #3b424b; --group: #262b32;
  --part: #1d2127; --delta: #256b4c; --gzip: #2a5f96; --whole: #97402f; --new: #80590c; } }
body { margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2rem; } h3 { font-size: 1rem; }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; }
rect { stroke: var(--page); stroke-width: 0.5; }
text { fill: var(--ink); pointer-events: none; }
rect:hover { stroke: var(--ink); stroke-width: 1.5; }
.bundle { fill: var(--group); } .directory { fill: var(--part); }
.delta { fill: var(--delta); background: var(--delta); } .gzip { fill: var(--gzip); background: var(--gzip); }
.whole { fill: var(--whole); background: var(--whole); } .new { fill: var(--new); background: var(--new); }
ul { list-style: none; padding: 0; } li { display: inline-block; margin-right: 1.5rem; }
li i { display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.4em; border-radius: 2px; }
.t { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; } .n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
"""
