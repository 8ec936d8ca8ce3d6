"""What an update costs and why, for a small mix whose packs are really made."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import deltareport
from mixer.content import ContentStore
from mixer.deltareport import Kind, Member, UpdateReport, as_json, as_text, shares
from mixer.errors import BuildError
from mixer.updates import Span
from swupd.report import TextReport

Mix = Any


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def prose(seed: int, size: int = 4000) -> bytes:
    """Text that compresses, and that a few changed words leave mostly the same."""
    words = random.Random(seed).choices(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"], k=size // 5)
    return " ".join(words).encode()


OLD = {
    "os-core": {
        "/usr/bin/sh": noise(1, 5000),
        "/usr/lib/moved-1.0": noise(2, 3000),
        "/usr/share/other": noise(3, 3000),
    },
    "b": {"/usr/bin/b": noise(4, 2000), "/usr/share/doc/log.gz": gzip.compress(prose(5), mtime=0)},
    "c": {},
}
NEW = {
    "os-core": {
        "/usr/bin/sh": noise(1, 5000) + b"changed",
        "/usr/lib/moved-2.0": noise(2, 3000),
        "/usr/share/other": noise(6, 3000),
        "/usr/share/tiny": b"tiny",
    },
    "b": {
        "/usr/bin/b": noise(4, 2000) + b"changed",
        "/usr/share/doc/log.gz": gzip.compress(prose(5).replace(b"alpha beta", b"beta alpha", 3), mtime=0),
        "/usr/share/shared": noise(7, 1000),
    },
    "c": {"/usr/share/shared": noise(7, 1000)},
    "brand-new": {"/usr/bin/new": "new"},
}


@pytest.fixture
def changed(mix: Mix) -> Mix:
    """Versions 10 and 20 without packs between them."""
    mix.config.key.unlink()
    mix.version(10, OLD)
    mix.build(sign=False)
    mix.version(20, NEW)
    mix.build(sign=False)
    return mix


def reports(mix: Mix, bundle: str = "", **span: int) -> list[UpdateReport]:
    return deltareport.delta_reports(mix.workspace, mix.config, TextReport(), Span(**span), bundle=bundle)


def member(update: UpdateReport, path: str) -> Member:
    assert update.pack is not None
    return next(member for member in update.pack.members if member.path == path)


def test_packs_that_are_published_have_their_real_sizes(changed: Mix) -> None:
    changed.delta_packs()
    (update,) = reports(changed)
    assert update.update_pack is not None
    assert update.update_pack.is_published
    assert update.all_packs_published
    assert update.update_pack.bytes == (changed.www / "20/update-from-10.tar").stat().st_size
    sizes = {bundle.bundle: bundle.pack.bytes for bundle in update.bundles}
    assert sizes == {
        name: (changed.www / f"20/pack-{name}-from-10.tar").stat().st_size for name in ("os-core", "b", "c")
    }
    assert update.bundle_packs == sum(sizes.values())
    zero = {bundle.bundle: bundle.zero_pack for bundle in update.bundles}
    assert zero == {name: (changed.www / f"20/pack-{name}-from-0.tar").stat().st_size for name in ("os-core", "b", "c")}


def test_packs_that_are_not_published_are_estimated_and_not_made(changed: Mix) -> None:
    before = changed.snapshot()
    (update,) = reports(changed)
    assert update.update_pack is not None
    assert not update.update_pack.is_published
    assert not update.all_packs_published
    assert update.update_pack.bytes == sum(member.estimate for member in update.update_pack.members)
    assert "about" in as_text(update, 0)
    assert changed.snapshot() == before


def test_the_shares_of_a_pack_make_its_size(changed: Mix) -> None:
    changed.delta_packs()
    (update,) = reports(changed)
    for pack in (update.update_pack, *(bundle.pack for bundle in update.bundles)):
        assert pack is not None
        assert sum(member.share for member in pack.members) == pack.bytes
        assert list(pack.members) == sorted(pack.members, key=lambda member: -member.share)


def test_every_file_says_why_it_is_fetched_as_it_is(changed: Mix) -> None:
    (update,) = reports(changed)
    program, moved, log = (
        member(update, path) for path in ("/usr/bin/sh", "/usr/lib/moved-2.0", "/usr/share/doc/log.gz")
    )
    assert (program.kind, program.why, program.size) == (Kind.DELTA, program.algorithm, 5007)
    assert program.algorithm in ("bsdiff", "hdiffpatch")
    assert moved.why == "the same content, from /usr/lib/moved-1.0"
    assert log.kind is Kind.GZIP_DELTA
    assert log.algorithm in ("bsdiff", "hdiffpatch")
    assert member(update, "/usr/share/other").why == "a delta would not be smaller"
    tiny = member(update, "/usr/share/tiny")
    assert (tiny.kind, tiny.why, tiny.old_path) == (Kind.FULL, "nothing like it in the older version", None)


def test_an_object_without_any_comparison_costs_its_fullfile(changed: Mix) -> None:
    (update,) = reports(changed)
    (entry,) = (entry for entry in changed.manifest(20, "os-core").entries if entry.name == "/usr/share/tiny")
    fullfile = changed.www / f"20/files/{entry.hash}.tar"
    assert member(update, "/usr/share/tiny").estimate == fullfile.stat().st_size


def test_a_link_is_no_file_to_make_a_delta_of(changed: Mix) -> None:
    changed.version(30, NEW)
    link = changed.source / "30/full/usr/share/tiny"
    link.unlink()
    link.symlink_to("shared")
    changed.build(sign=False)
    (update,) = reports(changed)
    assert member(update, "/usr/share/tiny").why == "not a regular file"


def test_an_object_that_several_bundles_need_is_fetched_once_by_the_update_pack(changed: Mix) -> None:
    (update,) = reports(changed)
    shared = member(update, "/usr/share/shared")
    assert sorted(shared.bundles) == ["b", "c"]
    packs = [bundle for bundle in update.bundles if bundle.bundle in shared.bundles]
    for bundle in packs:
        assert [m.bundles for m in bundle.pack.members if m.path == shared.path] == [shared.bundles]
    assert len(packs) == 2
    assert update.fullfiles < sum(bundle.fullfiles for bundle in update.bundles)


def test_bundles_that_are_new_are_named_but_cost_no_update_anything(changed: Mix) -> None:
    (update,) = reports(changed)
    assert [new.bundle for new in update.new_bundles] == ["brand-new"]
    assert "brand-new" not in {bundle.bundle for bundle in update.bundles}
    assert "New bundles, and the size of their zero packs: brand-new (" in as_text(update, 0)


def test_one_bundle_is_reported_by_its_own_pack(changed: Mix) -> None:
    (update,) = reports(changed, bundle="b")
    assert update.update_pack is None
    assert update.pack is not None
    assert update.pack.file == "20/pack-b-from-10.tar"
    assert [bundle.bundle for bundle in update.bundles] == ["b"]
    assert member(update, "/usr/share/doc/log.gz").kind is not Kind.GZIP_DELTA


def test_a_bundle_that_did_not_change_costs_nothing(changed: Mix) -> None:
    changed.version(30, {**NEW, "os-core": {**NEW["os-core"], "/usr/bin/sh": noise(1, 5000)}})
    changed.build(sign=False)
    (update,) = reports(changed, bundle="b")
    assert (update.pack, update.bundles, update.fullfiles) == (None, (), 0)
    assert as_text(update, 20) == "From version 20 to version 30: nothing to fetch"


def test_an_unknown_bundle_is_refused_with_the_names_that_come_near(changed: Mix) -> None:
    with pytest.raises(BuildError, match="version 20 has no bundle os-cor") as caught:
        reports(changed, bundle="os-cor")
    assert caught.value.hint == "did you mean os-core?"


def test_the_first_version_has_nothing_to_be_compared_with(mix: Mix) -> None:
    mix.build()
    with pytest.raises(BuildError, match="no version before 10"):
        reports(mix)


def test_several_older_versions_are_reported_one_by_one(changed: Mix) -> None:
    changed.version(30, {**NEW, "os-core": {**NEW["os-core"], "/usr/bin/sh": noise(1, 5000)}})
    changed.build(sign=False)
    assert [(u.from_version, u.to_version) for u in reports(changed, previous_versions=2)] == [(20, 30), (10, 30)]


def test_pairs_are_compared_once(changed: Mix, capsys: pytest.CaptureFixture[str]) -> None:
    first = reports(changed)
    assert "Compared " in capsys.readouterr().out
    assert reports(changed) == first
    assert "Compared " not in capsys.readouterr().out


def test_json_has_everything_under_stable_keys(changed: Mix) -> None:
    changed.delta_packs()
    found = reports(changed)
    (update,) = json.loads(as_json(found))["updates"]
    assert list(update) == [
        *("from_version", "to_version", "update_pack", "bundle_packs", "all_packs_published", "fullfiles"),
        *("bundles", "new_bundles"),
    ]
    assert list(update["bundles"][0]) == ["bundle", "from_version", "to_version", "pack", "fullfiles", "zero_pack"]
    assert list(update["update_pack"]) == ["file", "bytes", "is_published", "members"]
    assert list(update["update_pack"]["members"][0]) == [
        *("path", "bundles", "kind", "algorithm", "reason", "old_path", "size", "estimate", "share")
    ]
    assert list(update["new_bundles"][0]) == ["bundle", "version", "zero_pack"]
    assert {member["kind"] for member in update["update_pack"]["members"]} == {"delta", "gzip delta", "full"}


def test_names_that_are_no_text_survive_json() -> None:
    odd = Member("/usr/\udcff", ("b",), Kind.FULL, "", "smaller than 200 bytes", None, 1, 1, 1)
    pack = deltareport.Pack("20/update-from-10.tar", 1, True, (odd,))
    report = UpdateReport(10, 20, pack, 0, True, 0, (), ())
    (update,) = json.loads(as_json([report]))["updates"]
    assert update["update_pack"]["members"][0]["path"] == odd.path


def test_the_table_shows_as_many_files_as_asked_for(changed: Mix) -> None:
    (update,) = reports(changed)
    assert update.pack is not None
    count = len(update.pack.members)
    paths = [member.path for member in update.pack.members]
    some, every = as_text(update, 2), as_text(update, 0)
    assert f"The 2 most expensive of {count} files in 20/update-from-10.tar" in some
    assert [path for path in paths if f" {path} " in some] == paths[:2]
    assert f"\n{count} files in 20/update-from-10.tar\n" in every
    assert [path for path in paths if f" {path} " in every] == paths


def test_the_packs_of_a_build_are_listed_file_by_file(changed: Mix) -> None:
    text = deltareport.made_packs(changed.delta_packs(), ContentStore(changed.workspace.objects))
    lists = dict(part.split("\n", 1) for part in text.split("\n\n"))
    assert set(lists) == {
        "20/update-from-10.tar",
        "20/pack-os-core-from-10.tar",
        "20/pack-b-from-10.tar",
        "20/pack-c-from-10.tar",
    }
    assert "/usr/bin/b" in lists["20/pack-b-from-10.tar"]
    assert "/usr/bin/sh" not in lists["20/pack-b-from-10.tar"]
    assert "a delta would not be smaller" in lists["20/update-from-10.tar"]


@given(st.lists(st.integers(1, 2**50), min_size=1, max_size=40), st.integers(0, 2**50))
def test_shares_are_right_to_a_byte(estimates: list[int], total: int) -> None:
    parts = shares(estimates, total)
    assert sum(parts) == total
    for estimate, part in zip(estimates, parts, strict=True):
        assert abs(part * sum(estimates) - total * estimate) < sum(estimates)
