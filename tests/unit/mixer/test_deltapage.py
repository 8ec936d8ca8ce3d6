"""The page of `mixer report delta --html`."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.deltapage import SMALL_PART, page
from mixer.deltareport import BundleReport, Kind, Member, NewBundle, Pack, UpdateReport

HOSTILE = ['<script>alert("x")</script>', "' onload='x", '" onload="x', "]]>", "&amp;", "--><b>", "</svg></title>"]


def member(path: str, share: int, *, bundle: str = "os-core", kind: Kind = Kind.DELTA, old: str | None = "") -> Member:
    reason = "a delta would not be smaller" if kind is Kind.FULL else ""
    return Member(path, (bundle,), kind, "bsdiff", reason, path if old == "" else old, 10 * share, share, share)


def packed(file: str, members: list[Member]) -> Pack:
    return Pack(file, sum(one.share for one in members), True, tuple(members))


def update(*members: Member, new: str = "brand-new") -> UpdateReport:
    order = sorted(members, key=lambda one: -one.share)
    groups: dict[str, list[Member]] = {}
    for one in order:
        groups.setdefault(one.bundles[0], []).append(one)
    bundles = tuple(
        BundleReport(name, 10, 20, packed(f"20/pack-{name}-from-10.tar", group), 1000, None)
        for name, group in groups.items()
    )
    pack = packed("20/update-from-10.tar", order)
    return UpdateReport(10, 20, pack, pack.bytes, True, 5000, bundles, (NewBundle(new, 20, 100),))


def parsed(*updates: UpdateReport, limit: int = 20) -> Element:
    return ElementTree.fromstring(page(updates, limit))


def boxes(root: Element, *styles: str) -> list[Element]:
    return [box for box in root.iter("rect") if box.get("class") in (styles or ("delta", "gzip", "whole", "new"))]


def tooltip(box: Element) -> str:
    return box.findtext("title") or ""


def area(box: Element) -> float:
    return float(box.get("width", "")) * float(box.get("height", ""))


def test_every_large_file_has_a_box_with_all_about_it() -> None:
    root = parsed(update(member("/usr/bin/sh", 5000), member("/usr/lib/libc.so", 9000, bundle="c")))
    shown = {tuple(tooltip(box).split("\n")) for box in boxes(root)}
    assert shown == {
        ("/usr/bin/sh", "5.0 kB of 50.0 kB", "delta: bsdiff", "os-core"),
        ("/usr/lib/libc.so", "9.0 kB of 90.0 kB", "delta: bsdiff", "c"),
    }
    groups = [tooltip(box) for box in boxes(root, "bundle", "directory")]
    assert sorted(groups) == [
        *("/usr/bin: 1 file, 5.0 kB", "/usr/lib: 1 file, 9.0 kB", "c: 1 file, 9.0 kB", "os-core: 1 file, 5.0 kB")
    ]


def test_areas_are_as_the_costs() -> None:
    root = parsed(update(*(member(f"/usr/bin/{share}", share) for share in (1000, 2000, 5000))))
    areas = {tooltip(box).split("\n")[0]: area(box) for box in boxes(root)}
    assert areas["/usr/bin/2000"] == pytest.approx(2 * areas["/usr/bin/1000"], rel=0.01)
    assert areas["/usr/bin/5000"] == pytest.approx(5 * areas["/usr/bin/1000"], rel=0.01)


@pytest.mark.parametrize(
    ("kind", "old", "style"),
    [
        (Kind.DELTA, "", "delta"),
        (Kind.GZIP_DELTA, "", "gzip"),
        (Kind.FULL, "", "whole"),
        (Kind.FULL, None, "new"),
    ],
)
def test_colours_tell_how_a_file_is_fetched(kind: Kind, old: str | None, style: str) -> None:
    root = parsed(update(member("/usr/bin/sh", 500, kind=kind, old=old)))
    assert [box.get("class") for box in boxes(root)] == [style]
    assert [item.get("class") for item in root.iter("i")] == [style]


def test_small_files_are_merged_with_their_like() -> None:
    small = [member(f"/usr/share/doc/{i}", 1) for i in range(30)]
    new = [member(f"/usr/share/doc/new{i}", 1, kind=Kind.FULL, old=None) for i in range(7)]
    root = parsed(update(member("/usr/share/large", 1_000_000), *small, *new))
    assert sorted((box.get("class"), tooltip(box).split("\n")[0]) for box in boxes(root)) == [
        ("delta", "/usr/share/large"),
        ("delta", "30 files, 30 bytes"),
        ("new", "7 files, 7 bytes"),
    ]


def test_the_page_of_a_large_update_stays_small() -> None:
    members = [
        member(f"/usr/d{i % 97}/f{i}", 1 + i * i % 1009, bundle=f"bundle{i % 500}", kind=list(Kind)[i % 3])
        for i in range(12_000)
    ]
    data = page([update(*members)], 20)
    assert len(data) < 600_000
    assert len(boxes(ElementTree.fromstring(data))) < 3 / SMALL_PART


def test_the_table_has_as_many_files_as_asked_for() -> None:
    many = update(*(member(f"/usr/bin/{i}", 100 + i) for i in range(30)))
    for limit, count in ((5, 5), (0, 30)):
        table = list(parsed(many, limit=limit).iter("table"))[-1]
        assert len(list(table.iter("tr"))) == 1 + count
    assert b"The 5 most expensive of 30 files" in page([many], 5)


def test_all_updates_are_on_the_page_and_one_without_cost_says_so() -> None:
    nothing = UpdateReport(15, 20, None, 0, True, 0, (), ())
    root = parsed(update(member("/usr/bin/sh", 500)), nothing)
    assert [heading.text for heading in root.iter("h2")] == [
        "From version 10 to version 20",
        "From version 15 to version 20",
    ]
    assert len(list(root.iter("svg"))) == 1
    assert "There is nothing to fetch." in [paragraph.text for paragraph in root.iter("p")]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_outside_are_text(name: str) -> None:
    root = parsed(update(member(f"/usr/{name}/{name}", 500, bundle=name, old=f"/old/{name}"), new=name))
    assert {element.tag for element in root.iter()} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "section", "p", "ul", "li", "i", "div"),
        *("table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "text"),
    }
    assert not [key for element in root.iter() for key in element.attrib if key.startswith("on")]
    cells = [cell.text for cell in root.iter("td")]
    assert f"/usr/{name}/{name}" in cells
    assert name in cells
    assert f"bsdiff, from /old/{name}" in cells


@given(st.text(st.characters(codec=None), min_size=1, max_size=30), st.integers(1, 2**40))
def test_any_name_gives_a_page_that_can_be_read(name: str, share: int) -> None:
    root = parsed(update(member(f"/{name}", share, bundle=name)))
    shown = "".join(letter if letter.isprintable() else "�" for letter in name)
    assert f"/{shown}" in [cell.text for cell in root.iter("td")]


def test_what_turns_the_direction_of_writing_is_replaced() -> None:
    assert "\u202e" not in page([update(member("/usr/bin/a\u202eexe.sh", 500))], 20).decode()


def test_the_page_needs_nothing_else() -> None:
    text = page([update(member("/usr/bin/sh", 500))], 20).decode()
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", text)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert "prefers-color-scheme: dark" in text


def test_the_same_reports_give_the_same_page() -> None:
    members = [member(f"/usr/bin/{i}", 100 + i % 7) for i in range(50)]
    assert page([update(*members)], 20) == page([update(*members)], 20)
