from __future__ import annotations

from pathlib import Path

import pytest

from mixer.composition import ComposedBundle, Composition
from mixer.errors import BuildError
from mixer.manifests import BuiltManifests, build_manifests, manifest_hash
from mixer.scan import Record
from swupd.errors import ManifestError
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import Entry, FileType, Manifest, parse


def file(content: str, size: int = 1) -> Record:
    return Record(FileType.FILE, hash_content(0o100644, 0, 0, content.encode()), size)


DIRECTORY = Record(FileType.DIRECTORY, "d" * 64, 0)
LINK = Record(FileType.LINK, "1" * 64, 3)
MARKER = "/usr/share/clear/bundles"


class Published:
    """A published version in memory."""

    def __init__(self, built: BuiltManifests | None = None, before: Published | None = None) -> None:
        self.mom: Manifest | None = built.mom.manifest if built else None
        self.manifests: dict[str, Manifest] = dict(before.manifests) if before else {}
        if built:
            self.manifests |= {name: bundle.manifest for name, bundle in built.bundles.items()}
            self.manifests = {
                k: v for k, v in self.manifests.items() if k in {e.name for e in built.mom.manifest.entries}
            }
            self.manifests["full"] = built.full.manifest

    def manifest(self, bundle: str) -> Manifest | None:
        return self.manifests.get(bundle)


class Mix:
    """A mix that is changed in one line and built in one call."""

    def __init__(self) -> None:
        self.bundles: dict[str, ComposedBundle] = {}
        self.records: dict[str, Record] = {}
        self.published = Published()
        self.format = 30

    def bundle(self, name: str, *paths: str, exported: tuple[str, ...] = (), **others: object) -> None:
        files = {path: path in exported for path in (*paths, *exported)}
        self.bundles[name] = ComposedBundle(name, files=files, **others)  # type: ignore[arg-type]

    def has(self, **records: Record) -> None:
        self.records |= {f"/{name.replace('__', '/')}": record for name, record in records.items()}

    def build(self, version: int, *, minversion: int = 0) -> BuiltManifests:
        composed = Composition(version, Path("/nowhere"), self.bundles)
        built = build_manifests(
            composed, self.records, self.published, format=self.format, timestamp=1700000000, minversion=minversion
        )
        self.published = Published(built, self.published)
        return built


@pytest.fixture
def mix() -> Mix:
    mix = Mix()
    mix.records = {"/usr": DIRECTORY, "/usr/a": file("a"), "/usr/b": file("b")}
    mix.bundle("os-core", "/usr", "/usr/a")
    return mix


def lines(built: BuiltManifests, bundle: str) -> list[str]:
    """The entries of a manifest as flags, version and name."""
    manifest = built.full.manifest if bundle == "full" else built.bundles[bundle].manifest
    return [f"{entry.flags} {entry.version} {entry.name}" for entry in manifest.entries]


def mom_lines(built: BuiltManifests) -> list[str]:
    return [f"{entry.flags} {entry.version} {entry.name}" for entry in built.mom.manifest.entries]


# -- versions of entries -----------------------------------------------------------------------------------------------


def test_the_first_version_has_everything_as_new(mix: Mix) -> None:
    built = mix.build(10)

    assert lines(built, "os-core") == ["D... 10 /usr", "F... 10 /usr/a"]
    assert lines(built, "full") == ["D... 10 /usr", "F... 10 /usr/a", "F... 10 /usr/b"]
    assert built.bundles["os-core"].manifest.previous == 0
    assert built.bundles["os-core"].changes == (2, 0, 0)


def test_the_header_has_the_lines_in_the_published_order(mix: Mix) -> None:
    mix.bundle("b", "/usr/b", also_adds=("c",))
    mix.bundle("c", "/usr/b")

    text = mix.build(10).bundles["b"].data.decode()

    assert text.splitlines()[:9] == [
        "MANIFEST\t30",
        "version:\t10",
        "previous:\t0",
        "filecount:\t1",
        "timestamp:\t1700000000",
        "contentsize:\t1",
        "includes:\tos-core",
        "also-add:\tc",
        "",
    ]


def test_a_changed_file_gets_the_new_version_and_others_keep_theirs(mix: Mix) -> None:
    mix.build(10)
    mix.has(usr__a=file("changed"))

    built = mix.build(20)

    assert lines(built, "os-core") == ["D... 10 /usr", "F... 20 /usr/a"]
    assert built.bundles["os-core"].manifest.previous == 10
    assert built.bundles["os-core"].changes == (0, 1, 0)


def test_a_file_that_returns_to_older_content_gets_the_new_version(mix: Mix) -> None:
    mix.build(10)
    mix.has(usr__a=file("changed"))
    mix.build(20)
    mix.has(usr__a=file("a"))

    assert "F... 30 /usr/a" in lines(mix.build(30), "os-core")


def test_a_changed_export_flag_is_a_change(mix: Mix) -> None:
    mix.build(10)
    mix.bundle("os-core", "/usr", exported=("/usr/a",))

    assert "F..x 20 /usr/a" in lines(mix.build(20), "os-core")


def test_a_vanished_file_is_deleted_and_stays_deleted(mix: Mix) -> None:
    mix.build(10)
    mix.records.pop("/usr/a")
    assert lines(mix.build(20), "os-core") == ["D... 10 /usr", ".d.. 20 /usr/a"]
    mix.has(usr__new=file("new"))
    mix.bundle("os-core", "/usr", "/usr/a", "/usr/new")

    built = mix.build(30)

    assert lines(built, "os-core") == ["D... 10 /usr", ".d.. 20 /usr/a", "F... 30 /usr/new"]
    assert lines(built, "full") == ["D... 10 /usr", "F... 10 /usr/b", ".d.. 20 /usr/a", "F... 30 /usr/new"]


def test_a_deleted_file_that_comes_back_is_added(mix: Mix) -> None:
    mix.build(10)
    former = mix.records.pop("/usr/a")
    mix.build(20)
    mix.has(usr__a=former)

    built = mix.build(30)

    assert lines(built, "os-core") == ["D... 10 /usr", "F... 30 /usr/a"]
    assert built.bundles["os-core"].changes == (1, 0, 0)


def test_deleted_entries_end_with_the_format(mix: Mix) -> None:
    mix.build(10)
    mix.records.pop("/usr/a")
    mix.build(20)
    mix.format = 31

    assert lines(mix.build(30, minversion=30), "os-core") == ["D... 30 /usr"]


@pytest.mark.parametrize("path", ["/boot/x", "/usr/lib/modules/6/x.ko", "/usr/lib/kernel/x"])
def test_kernels_are_ghosted_and_forgotten_by_the_next_manifest(mix: Mix, path: str) -> None:
    mix.records[path] = file("kernel")
    mix.bundle("os-core", "/usr", path)
    mix.build(10)
    del mix.records[path]
    assert lines(mix.build(20), "os-core")[-1] == f".g.. 20 {path}"
    mix.has(usr__a=file("a"))
    mix.bundle("os-core", "/usr", "/usr/a")

    assert path not in mix.build(30).bundles["os-core"].data.decode()


def test_a_ghosted_entry_that_is_forgotten_makes_no_new_manifest(mix: Mix) -> None:
    mix.has(boot__x=file("kernel"))
    mix.bundle("os-core", "/usr", "/boot/x")
    mix.build(10)
    del mix.records["/boot/x"]
    mix.build(20)

    built = mix.build(30)

    assert built.bundles == {}
    assert mom_lines(built) == ["M... 20 os-core"]


def test_the_directory_of_ghosts_itself_is_deleted(mix: Mix) -> None:
    mix.has(boot=DIRECTORY)
    mix.bundle("os-core", "/usr", "/boot")
    mix.build(10)
    del mix.records["/boot"]

    assert ".d.. 20 /boot" in lines(mix.build(20), "os-core")


def test_a_directory_may_become_a_file(mix: Mix) -> None:
    mix.records |= {"/usr/d": DIRECTORY, "/usr/d/x": file("x")}
    mix.bundle("os-core", "/usr", "/usr/d", "/usr/d/x")
    mix.build(10)
    del mix.records["/usr/d/x"]
    mix.records["/usr/d"] = file("now a file")

    built = mix.build(20)

    assert lines(built, "os-core") == ["D... 10 /usr", "F... 20 /usr/d", ".d.. 20 /usr/d/x"]
    assert built.type_changes == ("/usr/d",)


def test_a_type_change_counts_even_if_the_hash_does_not_change(mix: Mix) -> None:
    mix.build(10)
    mix.records["/usr/a"] = Record(FileType.LINK, mix.records["/usr/a"].hash, 1)

    assert "L... 20 /usr/a" in lines(mix.build(20), "os-core")


def test_entries_are_sorted_by_version_and_then_bytewise(mix: Mix) -> None:
    mix.build(10)
    mix.records |= {"/usr/é": file("1"), "/usr/z": file("2"), "/usr/Z": file("3"), "/usr/\udcff": file("4")}
    mix.bundle("os-core", *mix.records)

    names = [line.split(" ", 2)[2] for line in lines(mix.build(20), "os-core")]

    assert names == ["/usr", "/usr/a", "/usr/Z", "/usr/b", "/usr/z", "/usr/é", "/usr/\udcff"]


def test_a_moved_file_is_deleted_in_one_bundle_and_new_in_the_other(mix: Mix) -> None:
    mix.bundle("x", "/usr/b")
    mix.bundle("y", "/usr")
    mix.has(marker=file(""))
    mix.bundle("y", "/marker")
    mix.build(10)
    mix.bundle("x", "/marker")
    mix.bundle("y", "/marker", "/usr/b")

    built = mix.build(20)

    assert lines(built, "x") == [".d.. 20 /usr/b", "F... 20 /marker"][::-1]
    assert lines(built, "y") == ["F... 10 /marker", "F... 20 /usr/b"]


# -- Manifest.full -----------------------------------------------------------------------------------------------------


def test_full_has_the_version_that_a_bundle_gives_a_path(mix: Mix) -> None:
    mix.build(10)
    mix.bundle("new", "/usr/b")

    built = mix.build(20)

    assert lines(built, "new") == ["F... 20 /usr/b"]
    assert lines(built, "full") == ["D... 10 /usr", "F... 10 /usr/a", "F... 20 /usr/b"]


def test_every_new_entry_of_a_bundle_is_in_full_with_this_version(mix: Mix) -> None:
    mix.bundle("x", "/usr", "/usr/b")
    mix.build(10)
    mix.bundle("x", "/usr/a", "/usr/b")
    mix.bundle("os-core", "/usr")
    mix.has(usr__b=file("other"))

    built = mix.build(20)

    full = {(entry.hash, entry.version) for entry in built.full.manifest.entries if entry.is_present}
    for bundle in built.bundles.values():
        new = {(e.hash, e.version) for e in bundle.manifest.entries if e.is_present and e.version == 20}
        assert new <= full


def test_full_is_written_even_if_nothing_changed(mix: Mix) -> None:
    mix.build(10)

    built = mix.build(20)

    assert built.bundles == {}
    assert lines(built, "full") == ["D... 10 /usr", "F... 10 /usr/a", "F... 10 /usr/b"]
    assert built.full.manifest.previous == 10


def test_full_has_no_export_flags(mix: Mix) -> None:
    mix.bundle("os-core", "/usr", exported=("/usr/a",))

    assert "F... 10 /usr/a" in lines(mix.build(10), "full")


# -- the MoM -----------------------------------------------------------------------------------------------------------


def test_an_unchanged_bundle_keeps_its_line(mix: Mix) -> None:
    mix.bundle("b", "/usr/b")
    first = mix.build(10)
    mix.has(usr__a=file("changed"))

    built = mix.build(20)

    assert set(built.bundles) == {"os-core"}
    assert mom_lines(built) == ["M... 10 b", "M... 20 os-core"]
    assert built.mom.manifest.entries[0] == first.mom.manifest.entries[0]
    assert (built.mom.manifest.previous, built.mom.manifest.contentsize) == (10, 0)


def test_the_mom_has_the_hash_of_the_manifest_as_a_root_owned_file(mix: Mix) -> None:
    built = mix.build(10)

    (entry,) = built.mom.manifest.entries
    assert entry.hash == hash_content(0o100644, 0, 0, built.bundles["os-core"].data)
    assert entry.hash == manifest_hash(built.bundles["os-core"].data)


def test_a_bundle_that_left_the_mix_leaves_the_mom(mix: Mix) -> None:
    mix.bundle("b", "/usr/b")
    mix.build(10)
    del mix.bundles["b"]

    assert mom_lines(mix.build(20)) == ["M... 10 os-core"]


def test_a_bundle_that_returns_starts_anew(mix: Mix) -> None:
    mix.bundle("b", "/usr/b")
    mix.build(10)
    bundle = mix.bundles.pop("b")
    mix.build(20)
    mix.bundles["b"] = bundle

    built = mix.build(30)

    assert lines(built, "b") == ["F... 30 /usr/b"]
    assert built.bundles["b"].manifest.previous == 0


def test_a_bundle_that_lost_all_files_has_them_deleted(mix: Mix) -> None:
    mix.bundle("b", "/usr/b")
    mix.build(10)
    mix.bundle("b")

    assert lines(mix.build(20), "b") == [".d.. 20 /usr/b"]
    assert mom_lines(mix.build(30)) == ["M... 10 os-core", "M... 20 b"]


def test_other_includes_make_a_new_manifest(mix: Mix) -> None:
    mix.records["/usr/c"] = file("c")
    mix.bundle("b", "/usr/b")
    mix.bundle("c", "/usr/c")
    mix.build(10)
    mix.bundle("b", "/usr/b", includes=("c",))

    built = mix.build(20)

    assert lines(built, "b") == ["F... 10 /usr/b"]
    assert built.bundles["b"].manifest.includes == ("os-core", "c")


def test_an_experimental_bundle_is_marked_and_unmarked_without_a_new_manifest(mix: Mix) -> None:
    mix.bundle("b", "/usr/b", status="Experimental")
    assert mom_lines(mix.build(10)) == ["Me.. 10 b", "M... 10 os-core"]
    mix.bundle("b", "/usr/b")

    built = mix.build(20)

    assert built.bundles == {}
    assert mom_lines(built) == ["M... 10 b", "M... 10 os-core"]


def test_also_adds_do_not_count_in_formats_without_them(mix: Mix) -> None:
    mix.format = 28
    mix.bundle("b", "/usr/b", also_adds=("os-core",))
    mix.bundle("c", "/usr/b", also_adds=("b",))
    mix.build(10)

    assert mix.build(20).bundles == {}


def test_the_minimum_version_raises_everything_and_stays(mix: Mix) -> None:
    mix.build(10)
    mix.has(usr__a=file("changed"))
    mix.build(20)

    built = mix.build(30, minversion=20)

    assert lines(built, "os-core") == ["F... 20 /usr/a", "D... 30 /usr"]
    assert built.mom.manifest.minversion == 20
    assert mix.build(40).mom.manifest.minversion == 20


# -- what is said besides ----------------------------------------------------------------------------------------------


def test_each_path_of_a_cycle_is_with_one_member(mix: Mix) -> None:
    mix.bundle("x", "/usr/b", includes=("y",))
    mix.has(y=file("y"), x=file("x"))
    mix.bundle("x", "/usr/b", "/x", includes=("y",))
    mix.bundle("y", "/usr/b", "/y", includes=("x",))

    built = mix.build(10)

    assert lines(built, "x") == ["F... 10 /usr/b", "F... 10 /x"]
    assert lines(built, "y") == ["F... 10 /y"]


def test_paths_that_the_root_lacks_are_counted_and_links_on_the_way_named(mix: Mix) -> None:
    mix.records["/bin"] = LINK
    mix.bundle("os-core", "/usr", "/bin", "/bin/ls", "/nothing")

    built = mix.build(10)

    assert lines(built, "os-core") == ["L... 10 /bin", "D... 10 /usr"]
    assert built.missing == {"os-core": 2}
    assert built.through_links == ("/bin/ls",)


def test_a_bundle_without_its_marker_is_named(mix: Mix) -> None:
    mix.records[f"{MARKER}/os-core"] = file("", 0)
    mix.bundle("os-core", "/usr", f"{MARKER}/os-core")
    mix.bundle("b", "/usr/b")
    mix.bundle("empty", "/usr/b")

    assert mix.build(10).unmarked == ("b", "empty")


# -- sizes and limits --------------------------------------------------------------------------------------------------


def test_contentsize_counts_present_files_and_links(mix: Mix) -> None:
    mix.records |= {"/usr/a": file("a", 100), "/usr/link": LINK}
    mix.bundle("os-core", "/usr", "/usr/a", "/usr/link", "/usr/b")
    mix.build(10)
    del mix.records["/usr/b"]

    built = mix.build(20)

    assert built.bundles["os-core"].manifest.contentsize == 103
    assert built.full.manifest.contentsize == 103


@pytest.mark.parametrize("limit", ["ENTRIES_LIMIT", "CONTENT_BYTES_LIMIT"])
def test_a_manifest_that_clients_refuse_is_not_made(mix: Mix, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"mixer.manifests.{limit}", 0)

    with pytest.raises(BuildError, match=r"Manifest\.os-core would have 2 entries and 1 bytes"):
        mix.build(10)


def test_a_new_bundle_without_files_is_refused(mix: Mix) -> None:
    mix.bundle("b")

    with pytest.raises(BuildError, match="bundle b has no file at all"):
        mix.build(10)


def test_a_minimum_version_in_the_future_is_refused(mix: Mix) -> None:
    with pytest.raises(BuildError, match="minimum version 20 is later"):
        mix.build(10, minversion=20)


def test_a_version_that_does_not_follow_is_refused(mix: Mix) -> None:
    mix.build(20)

    with pytest.raises(BuildError, match="version 20 cannot follow version 20"):
        mix.build(20)


def test_a_mix_without_os_core_is_refused(mix: Mix) -> None:
    mix.bundles = {"b": ComposedBundle("b", files={"/usr/b": False})}

    with pytest.raises(BuildError, match="no bundle os-core"):
        mix.build(10)


def test_what_is_written_can_be_parsed(mix: Mix) -> None:
    mix.bundle("b", exported=("/usr/b",), also_adds=("c",))
    mix.bundle("c", "/usr/b")
    built = mix.build(10)

    for name, manifest in {**built.bundles, "full": built.full}.items():
        assert parse(manifest.data, name=name) == manifest.manifest


def test_a_name_that_no_manifest_can_have_stops_the_build(mix: Mix) -> None:
    mix.records["/usr/a\nb"] = file("x")

    with pytest.raises(ManifestError):
        mix.build(10)


def test_an_unchanged_entry_is_the_same_object_as_before(mix: Mix) -> None:
    mix.build(10)
    before = {entry.name: entry for entry in mix.published.manifests["full"].entries}
    mix.has(usr__a=file("changed"))

    after: dict[str, Entry] = {entry.name: entry for entry in mix.build(20).full.manifest.entries}

    assert after["/usr/b"] is before["/usr/b"]
