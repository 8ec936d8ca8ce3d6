from __future__ import annotations

from dataclasses import dataclass, field

from mixer.transition import Need, Step, bundle_steps, os_step
from swupd.formats.manifest import Entry, FileType, Manifest


def hash_of(letter: str) -> str:
    return f"{ord(letter):x}".rjust(64, "0")


def file(name: str, content: str, version: int = 10, kind: FileType = FileType.FILE) -> Entry:
    return Entry.present(kind, hash_of(content), version, name)


@dataclass
class Published:
    """A version by its bundles."""

    version: int
    bundles: dict[str, tuple[int, list[Entry]]]
    """Bundle -> version of its manifest, and entries."""
    includes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def mom(self) -> Manifest:
        lines = [Entry.present(FileType.MANIFEST, hash_of(n[0]), v, n) for n, (v, _) in sorted(self.bundles.items())]
        return Manifest(30, self.version, 0, 1, 0, entries=tuple(lines))

    def manifest(self, bundle: str) -> Manifest | None:
        if bundle not in self.bundles:
            return None
        version, entries = self.bundles[bundle]
        return Manifest(30, version, 0, 1, 0, includes=self.includes.get(bundle, ()), entries=tuple(entries))


def only(old: list[Entry], new: list[Entry]) -> list[tuple[str, str | None]]:
    """The needs of one bundle: path, and the path that it is made from."""
    (step,) = bundle_steps(Published(10, {"b": (10, old)}), Published(20, {"b": (20, new)}))
    return [(need.entry.name, need.source and need.source.name) for need in step.needs]


def test_what_changed_is_made_from_the_same_path_and_what_is_new_from_nothing() -> None:
    old = [file("/a", "a"), file("/same", "s")]
    new = [file("/a", "A", 20), file("/same", "s"), file("/new", "n", 20)]

    assert only(old, new) == [("/a", "/a"), ("/new", None)]


def test_what_is_older_than_the_bundle_was_is_not_needed() -> None:
    assert only([file("/a", "a")], [file("/a", "a"), file("/b", "b", 10), file("/c", "c", 20)]) == [("/c", None)]


def test_an_entry_that_only_got_a_new_number_is_not_needed() -> None:
    assert only([file("/a", "a")], [file("/a", "a", 20), file("/b", "b", 20)]) == [("/b", None)]


def test_a_moved_file_is_made_from_itself() -> None:
    assert only([file("/old", "a")], [Entry.deleted(20, "/old"), file("/new", "a", 20)]) == [("/new", "/old")]


def test_links_and_directories_are_never_made_from_anything() -> None:
    old = [file("/l", "l", kind=FileType.LINK), file("/d", "d", kind=FileType.DIRECTORY)]
    new = [file("/l", "m", 20, FileType.LINK), file("/d", "e", 20, FileType.DIRECTORY)]

    assert only(old, new) == [("/d", None), ("/l", None)]


def test_each_object_is_needed_once() -> None:
    assert only([file("/x", "x")], [file("/a", "a", 20), file("/b", "a", 20), file("/x", "x")]) == [("/a", None)]


def test_deleted_files_need_nothing() -> None:
    (step,) = bundle_steps(
        Published(10, {"b": (10, [file("/a", "a")])}), Published(20, {"b": (20, [Entry.deleted(20, "/a")])})
    )
    assert step.needs == ()


def test_a_bundle_may_be_made_from_what_it_includes_but_not_from_others() -> None:
    core, other = [file("/lib", "l")], [file("/far", "f")]
    includes = {"b": ("core",)}
    old = Published(10, {"b": (10, [file("/x", "x")]), "core": (10, core), "other": (10, other)}, includes)
    new = [file("/x", "x"), file("/lib2", "l", 20), file("/far2", "f", 20)]

    (step,) = bundle_steps(old, Published(20, {"b": (20, new), "core": (10, core), "other": (10, other)}, includes))

    assert [(n.entry.name, n.source and n.source.name) for n in step.needs] == [("/far2", None), ("/lib2", "/lib")]


def test_includes_in_a_circle_end() -> None:
    includes = {"a": ("b",), "b": ("a",)}
    old = Published(10, {"a": (10, [file("/a", "a")]), "b": (10, [file("/b", "b")])}, includes)
    new = Published(20, {"a": (20, [file("/a", "A", 20)]), "b": (10, [file("/b", "b")])}, includes)

    assert [step.bundle for step in bundle_steps(old, new)] == ["a"]


def test_new_and_unchanged_bundles_have_no_step() -> None:
    old = Published(10, {"a": (10, [file("/a", "a")])})
    new = Published(20, {"a": (10, [file("/a", "a")]), "new": (20, [file("/n", "n", 20)])})

    assert bundle_steps(old, new) == []


def test_versions_are_those_of_the_bundle() -> None:
    old = Published(30, {"b": (10, [file("/a", "a")])})
    new = Published(50, {"b": (40, [file("/a", "A", 40)])})

    (step,) = bundle_steps(old, new)

    assert (step.bundle, step.from_version, step.to_version) == ("b", 10, 40)


def test_the_whole_os_needs_each_object_once_and_prefers_one_that_can_be_made() -> None:
    a, b = file("/a", "x", 20), file("/b", "x", 20)
    old = file("/old", "o")
    first = Step("a", 10, 20, (Need(a, None), Need(file("/z", "z", 20), None)))
    second = Step("b", 10, 20, (Need(b, old),))

    whole = os_step([first, second], 10, 20)

    assert whole == Step("", 10, 20, (Need(b, old), Need(file("/z", "z", 20), None)))
