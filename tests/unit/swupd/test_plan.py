from __future__ import annotations

from swupd.formats.manifest import Entry, FileType, Manifest
from swupd.plan import (
    FileList,
    PackNeed,
    consolidate,
    pack_needs,
    plan_add,
    plan_install,
    plan_remove,
    plan_update,
    removal_order,
    write_order,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64


def file(name: str, version: int = 10, hash_: str = A) -> Entry:
    return Entry.present(FileType.FILE, hash_, version, name)


def directory(name: str, version: int = 10, hash_: str = C) -> Entry:
    return Entry.present(FileType.DIRECTORY, hash_, version, name)


def files(*entries: Entry) -> FileList:
    return {entry.name: entry for entry in entries}


def manifest(version: int, *entries: Entry) -> Manifest:
    return Manifest(format=30, version=version, previous=0, timestamp=1, contentsize=0, entries=entries)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.name for entry in entries]


# -- consolidation -----------------------------------------------------------------------------------------------------


def test_of_equal_present_entries_the_lower_version_stays() -> None:
    assert consolidate([manifest(20, file("/a", 20)), manifest(10, file("/a", 10))]) == files(file("/a", 10))


def test_present_wins_over_deleted() -> None:
    tombstone = Entry.deleted(30, "/a")
    assert consolidate([manifest(30, tombstone), manifest(10, file("/a"))]) == files(file("/a"))
    assert consolidate([manifest(10, file("/a")), manifest(30, tombstone)]) == files(file("/a"))


def test_of_deleted_entries_the_higher_version_stays() -> None:
    low, high = Entry.deleted(10, "/a"), Entry.deleted(20, "/a")
    assert consolidate([manifest(20, high), manifest(10, low)]) == files(high)


def test_bundles_that_disagree_about_a_path_are_reported_and_the_path_is_left_alone() -> None:
    told: list[str] = []
    both = consolidate([manifest(10, file("/a", 10, A)), manifest(20, file("/a", 20, B))], on_conflict=told.append)
    assert told == ["/a"]
    assert both["/a"].is_ghosted
    assert not plan_update(files(file("/a", 5)), both)
    assert not plan_update({}, both)


def test_a_third_opinion_does_not_end_a_disagreement() -> None:
    manifests = [manifest(10, file("/a", 10, hash_)) for hash_ in (A, B, A)]
    assert consolidate(manifests)["/a"].is_ghosted


# -- update ------------------------------------------------------------------------------------------------------------


def test_a_newer_file_is_installed() -> None:
    plan = plan_update(files(file("/a", 10, A)), files(file("/a", 20, B)))
    assert plan.install == (file("/a", 20, B),)


def test_a_new_file_is_installed() -> None:
    assert names(plan_update({}, files(file("/a", 5))).install) == ["/a"]


def test_a_file_that_is_not_newer_is_never_updated_even_if_it_differs() -> None:
    assert not plan_update(files(file("/a", 20, A)), files(file("/a", 20, B)))
    assert not plan_update(files(file("/a", 20, A)), files(file("/a", 10, B)))


def test_the_same_object_in_another_version_is_only_rechecked() -> None:
    plan = plan_update(files(file("/a", 10)), files(file("/a", 20)))
    assert not plan.install
    assert plan.recheck == (file("/a", 20),)


def test_a_tombstone_removes() -> None:
    assert plan_update(files(file("/a")), files(Entry.deleted(20, "/a"))).remove == ("/a",)


def test_a_tombstone_that_is_not_newer_removes_nothing() -> None:
    assert not plan_update(files(Entry.deleted(20, "/a")), files(Entry.deleted(20, "/a")))


def test_what_the_target_does_not_mention_is_removed() -> None:
    assert plan_update(files(file("/a")), {}).remove == ("/a",)


def test_an_old_tombstone_that_the_target_does_not_mention_removes_nothing() -> None:
    assert not plan_update(files(Entry.deleted(10, "/a")), {})


def test_a_file_that_comes_back_is_installed_whatever_the_version_of_its_tombstone() -> None:
    assert names(plan_update(files(Entry.deleted(20, "/a")), files(file("/a", 20))).install) == ["/a"]


def test_ghosted_entries_are_never_acted_on() -> None:
    ghost = Entry.ghosted(20, "/usr/x")
    assert not plan_update(files(file("/usr/x")), files(ghost))
    assert not plan_update(files(ghost), {})
    assert not plan_update({}, files(ghost))
    assert not plan_remove(files(ghost), {})


def test_files_of_the_boot_manager_are_updated_but_never_removed() -> None:
    kernel = "/usr/lib/kernel/vmlinuz"
    assert not plan_update(files(file(kernel)), files(Entry.deleted(20, kernel)))
    assert not plan_update(files(file("/usr/lib/modules/5/m.ko")), {})
    assert not plan_remove(files(file("/boot/x")), {})
    plan = plan_update(files(file(kernel)), files(file(kernel, 20, B)))
    assert names(plan.install) == [kernel]
    assert plan.needs_boot_update


def test_protected_paths_and_the_directories_themselves_are_left_alone() -> None:
    current = files(file("/etc/a"), file("/etc/b"), directory("/root"), directory("/var"), file("/usr/a"))
    plan = plan_update(current, files(file("/etc/a", 20, B), file("/etc/b", 20), file("/usr/a")))
    assert not plan
    assert plan.skipped == ("/etc/a", "/etc/b", "/root", "/var")
    assert not plan_remove(current, files(file("/usr/a")))


def test_a_protected_path_that_is_new_to_the_system_may_be_created() -> None:
    plan = plan_update(files(file("/etc/a")), files(file("/etc/a"), file("/etc/new", 20)))
    assert (names(plan.create), plan.install) == (["/etc/new"], ())
    plan = plan_add(files(file("/etc/a"), file("/etc/new")), files(file("/etc/a")))
    assert (names(plan.create), plan.install) == (["/etc/new"], ())


def test_a_mount_point_is_left_alone_but_not_what_is_below_it() -> None:
    target = files(directory("/srv", 20, B), file("/srv/a", 20))
    plan = plan_update(files(directory("/srv")), target, mounts=frozenset({"/srv"}))
    assert names(plan.install) == ["/srv/a"]
    assert plan.skipped == ("/srv",)


def test_in_a_snapshot_nothing_is_protected_and_all_that_goes_is_removed() -> None:
    current = files(file("/etc/a"), file("/usr/lib/modules/6.1/m"), file("/boot/vmlinuz-6.1"))
    target = files(file("/etc/a", 20, B))
    plan = plan_update(current, target, snapshot=True)
    assert names(plan.install) == ["/etc/a"]
    assert set(plan.remove) == {"/usr/lib/modules/6.1/m", "/boot/vmlinuz-6.1"}
    assert plan_remove(current, {}, snapshot=True).remove == removal_order(current)
    assert names(plan_add(target, {}, snapshot=True).install) == ["/etc/a"]


def test_a_change_of_systemd_itself_is_noticed() -> None:
    assert plan_update({}, files(file("/usr/lib/systemd/systemd"))).needs_reexec
    assert not plan_update({}, files(file("/usr/bin/true"))).needs_reexec


def test_a_new_directory_where_a_file_was_is_an_installation_and_not_a_removal() -> None:
    plan = plan_update(files(file("/a")), files(directory("/a", 20), file("/a/b", 20)))
    assert names(plan.install) == ["/a", "/a/b"]
    assert not plan.remove


def test_the_content_of_a_directory_that_becomes_a_file_is_removed() -> None:
    plan = plan_update(files(directory("/a"), file("/a/b"), file("/a/c")), files(file("/a", 20)))
    assert names(plan.install) == ["/a"]
    assert plan.remove == ("/a/c", "/a/b")


# -- order -------------------------------------------------------------------------------------------------------------


def test_directories_are_written_before_their_content_and_os_release_last() -> None:
    entries = [file("/usr/lib/os-release"), file("/usr/lib/z"), file("/usr/lib-x"), directory("/usr/lib")]
    assert names(write_order(entries)) == ["/usr/lib", "/usr/lib/z", "/usr/lib-x", "/usr/lib/os-release"]


def test_directories_are_removed_after_their_content() -> None:
    assert removal_order(["/a", "/a/b", "/a-b", "/a/b/c"]) == ("/a-b", "/a/b/c", "/a/b", "/a")


# -- bundle-add, bundle-remove, os-install -----------------------------------------------------------------------------


def test_a_new_bundle_brings_its_files_and_rechecks_shared_ones() -> None:
    new = files(file("/shared"), file("/own"), Entry.deleted(10, "/gone"))
    plan = plan_add(new, files(file("/shared"), file("/gone")))
    assert names(plan.install) == ["/own"]
    assert names(plan.recheck) == ["/shared"]
    assert not plan.remove


def test_a_new_bundle_does_not_overwrite_another_bundles_file() -> None:
    told: list[str] = []
    plan = plan_add(files(file("/a", 10, B)), files(file("/a", 10, A)), on_conflict=told.append)
    assert not plan
    assert told == ["/a"]


def test_a_removed_bundle_leaves_what_others_have() -> None:
    plan = plan_remove(files(directory("/d"), file("/d/own"), file("/d/shared")), files(file("/d/shared")))
    assert plan.remove == ("/d/own", "/d")


def test_a_removed_bundle_takes_what_others_have_deleted() -> None:
    assert plan_remove(files(file("/a")), files(Entry.deleted(10, "/a"))).remove == ("/a",)


def test_an_installation_rechecks_everything_and_only_creates_protected_paths() -> None:
    plan = plan_install(files(directory("/etc"), file("/etc/a"), file("/usr/a"), Entry.deleted(10, "/usr/b")))
    assert names(plan.recheck) == ["/usr/a"]
    assert names(plan.create) == ["/etc", "/etc/a"]
    assert not plan.remove
    assert len(plan.objects) == 2


def test_zero_packs_are_for_more_than_ten_files_per_bundle() -> None:
    packs = [PackNeed("x", 0, 10, frozenset())]
    many = files(*(file(f"/f{number}") for number in range(11)))
    few = files(*(file(f"/f{number}") for number in range(10)))
    assert plan_install(many, packs=packs).packs == tuple(packs)
    assert plan_install(few, packs=packs).packs == ()
    assert plan_add(many, {}, packs=packs).packs == tuple(packs)
    assert plan_add(few, {}, packs=packs).packs == ()


def test_a_file_that_only_has_a_higher_version_needs_no_pack() -> None:
    (need,) = pack_needs({"b": manifest(10, file("/a"))}, {"b": manifest(20, file("/a", 20), file("/b", 20, B))})
    assert need.hashes == {B}


def test_packs_are_needed_for_newer_and_new_bundles_only() -> None:
    old = manifest(10, file("/a"))
    newer = manifest(20, file("/a", 10, A), file("/b", 20, B), Entry.deleted(20, "/c"))
    needs = pack_needs({"same": old, "newer": old}, {"same": old, "newer": newer, "new": newer})
    assert needs == (
        PackNeed("newer", 10, 20, frozenset({B})),
        PackNeed("new", 0, 20, frozenset({A, B})),
    )
