from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mixer import places
from mixer.errors import BuildError
from mixer.manifests import manifest_hash
from mixer.release import Signer
from mixer.store import NothingPublished, PublishedTree, open_tree, total_size
from swupd.formats import signature
from swupd.formats.manifest import Entry, FileType, Manifest, serialise
from swupd.fs import Directory
from swupd.report import TextReport

OS_CORE = serialise(Manifest(30, 10, 0, 1700000000, 0, entries=(Entry.present(FileType.FILE, "a" * 64, 10, "/x"),)))


@pytest.fixture
def www(tmp_path: Path) -> Path:
    return tmp_path / "www"


@pytest.fixture
def tree(www: Path) -> PublishedTree:
    return open_tree("", www, TextReport())


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(*signature.make_certificate("Test", 1000, datetime.now(UTC)))


def mom(version: int, data: bytes = OS_CORE) -> bytes:
    line = Entry.present(FileType.MANIFEST, manifest_hash(data), 10, "os-core")
    return serialise(Manifest(30, version, 0, 1700000000, 0, entries=(line,)))


def publish(tree: PublishedTree, version: int, signer: Signer | None = None, **files: bytes) -> None:
    with tree.draft(version) as draft:
        draft.write("Manifest.MoM", mom(version))
        draft.write("Manifest.os-core", OS_CORE)
        for name, data in files.items():
            draft.write(name, data)
        tree.publish(draft, 30, signer)


def latest_files(www: Path) -> dict[str, bytes]:
    return {
        name: (www / "version" / name).read_bytes() for name in ("latest_version", "format30/latest", "format30/first")
    }


# -- publishing --------------------------------------------------------------------------------------------------------


def test_a_published_version_is_the_latest_of_all_and_of_its_format(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)
    publish(tree, 20)

    assert tree.latest() == 20
    assert latest_files(www) == {"latest_version": b"20", "format30/latest": b"20", "format30/first": b"10"}
    assert sorted(os.listdir(www)) == ["10", "20", "version"]


def test_a_version_has_its_directories_even_if_they_are_empty(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)

    assert sorted(os.listdir(www / "10")) == ["Manifest.MoM", "Manifest.os-core", "delta", "files"]


def test_latest_files_are_signed(tree: PublishedTree, www: Path, signer: Signer) -> None:
    publish(tree, 10, signer)

    for name in ("latest_version", "format30/latest"):
        path = www / "version" / name
        assert (
            signer.sign_again(path.read_bytes(), Path(f"{path}.sig").read_bytes()) == Path(f"{path}.sig").read_bytes()
        )


def test_publishing_without_signatures_leaves_none_that_would_be_wrong(
    tree: PublishedTree, www: Path, signer: Signer
) -> None:
    publish(tree, 10, signer)
    publish(tree, 20)

    assert list(www.rglob("*.sig")) == []


def test_a_draft_is_invisible_and_goes_away_with_its_error(tree: PublishedTree, www: Path) -> None:
    def interrupted() -> None:
        with tree.draft(10) as draft:
            draft.write("x", b"")
            assert os.listdir(www) == [".10.new"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert os.listdir(www) == []


def test_published_files_can_be_read_by_everybody(tree: PublishedTree, www: Path, signer: Signer) -> None:
    former = os.umask(0o077)
    try:
        publish(tree, 10, signer)
    finally:
        os.umask(former)

    for directory, _, names in os.walk(www):
        assert os.stat(directory).st_mode & 0o777 == 0o755
        for name in names:
            assert os.stat(os.path.join(directory, name)).st_mode & 0o777 == 0o644


def test_what_a_crash_left_behind_is_removed_by_the_next_build(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)
    (www / ".20.new/files").mkdir(parents=True)
    (www / ".10.old").mkdir()

    publish(tree, 20)

    assert sorted(os.listdir(www)) == ["10", "20", "version"]


def test_a_version_that_a_crash_left_with_its_old_name_comes_back(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)
    (www / "10").rename(www / ".10.old")

    publish(tree, 20)

    assert sorted(os.listdir(www)) == ["10", "20", "version"]


def test_an_older_version_cannot_be_published(tree: PublishedTree, www: Path) -> None:
    publish(tree, 20)

    with pytest.raises(BuildError, match="version 10 cannot be published after version 20"):
        publish(tree, 10)

    assert tree.latest() == 20
    assert not (www / "10").exists()


@pytest.mark.parametrize("steps", range(5))
def test_a_crash_at_any_rename_leaves_whole_versions_and_is_healed_by_the_next_try(
    tree: PublishedTree, www: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    publish(tree, 10, signer)
    rename = os.rename
    left = steps

    def crash(*args: str, **options: int) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        rename(*args, **options)

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        publish(tree, 20, signer)

    visible = {name for name in os.listdir(www) if not name.startswith(".")}
    assert visible == ({"10", "version"} if steps == 0 else {"10", "20", "version"})
    assert (www / f"{tree.latest()}/Manifest.MoM").exists()
    monkeypatch.setattr(os, "rename", rename)
    publish(tree, 20, signer)
    assert tree.latest() == 20
    assert snapshot(www / "10").keys() == snapshot(www / "20").keys()
    assert not list(www.rglob(".*"))


# -- the same version again --------------------------------------------------------------------------------------------


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_same_version_again_leaves_the_same_bytes(tree: PublishedTree, www: Path, signer: Signer) -> None:
    publish(tree, 10, signer)
    before = snapshot(www)

    publish(tree, 10, signer)

    assert snapshot(www) == before


@pytest.mark.parametrize("exchange", [True, False])
def test_the_newest_version_can_be_replaced(
    tree: PublishedTree, www: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no exchange here")

    if not exchange:
        monkeypatch.setattr(Directory, "exchange", refuse)
    publish(tree, 10, old=b"old", Manifest=b"first")

    with tree.draft(10) as draft:
        draft.write("Manifest.MoM", mom(10, b"other"))
        draft.write("new", b"new")
        tree.publish(draft, 30, None)

    assert sorted(os.listdir(www / "10")) == ["Manifest.MoM", "delta", "files", "new"]
    assert sorted(os.listdir(www)) == ["10", "version"]


def test_additions_stay_while_the_manifests_are_the_same(tree: PublishedTree, www: Path) -> None:
    publish(tree, 20)
    (www / "20/pack-os-core-from-10.tar").write_bytes(b"delta pack")
    (www / "20/delta/10-20-x").write_bytes(b"delta")

    publish(tree, 20)

    assert (www / "20/pack-os-core-from-10.tar").read_bytes() == b"delta pack"
    assert (www / "20/delta/10-20-x").read_bytes() == b"delta"


def test_files_are_added_to_a_published_version(tree: PublishedTree, www: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.write_bytes(b"pack")
    pack.chmod(0o644)
    publish(tree, 10)

    tree.add(10, [("pack-os-core-from-5.tar", pack), ("delta/5-10-x", b"delta")])

    assert (www / "10/pack-os-core-from-5.tar").samefile(pack)
    assert tree.read("10/delta/5-10-x") == b"delta"
    publish(tree, 10)
    assert tree.read("10/delta/5-10-x") == b"delta"


def test_nothing_is_added_to_a_version_that_is_not_there(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)

    with pytest.raises(BuildError, match="version 20 is not in"):
        tree.add(20, [("x", b"")])

    assert sorted(os.listdir(www)) == ["10", "version"]


@pytest.mark.parametrize("name", ["", "/x", "x/", "../x", "a/../../x", ".x", "a//x"])
def test_an_addition_stays_in_its_directory(tree: PublishedTree, name: str) -> None:
    publish(tree, 10)

    with pytest.raises(ValueError, match="not the name of a published file"):
        tree.add(10, [("y", b""), (name, b"")])

    assert not tree.has("10/y")


def test_an_error_of_the_disk_is_one_line(tree: PublishedTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "_replace_directory", full)

    with pytest.raises(BuildError, match="cannot publish version 10"):
        publish(tree, 10)


# -- what was published ------------------------------------------------------------------------------------------------


def test_published_manifests_are_found_through_the_mom(tree: PublishedTree) -> None:
    publish(tree, 10)
    with tree.draft(20) as draft:
        draft.write("Manifest.MoM", mom(20))
        tree.publish(draft, 30, None)

    version = tree.version(20)

    assert (version.mom.version, version.format) == (20, 30)
    found = version.manifest("os-core")
    assert found is not None
    assert found.version == 10
    assert version.manifest("unknown") is None
    assert version.manifest("full") is None


def test_a_manifest_with_another_hash_is_refused(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)
    (www / "10/Manifest.os-core").write_bytes(OS_CORE.replace(b"/x", b"/y"))

    with pytest.raises(BuildError, match=r"10/Manifest\.os-core is damaged: its hash"):
        tree.version(10).manifest("os-core")


def test_a_missing_manifest_is_named(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)
    (www / "10/Manifest.os-core").unlink()

    with pytest.raises(BuildError, match=r"cannot read .*10/Manifest\.os-core"):
        tree.version(10).manifest("os-core")


def test_the_files_of_a_version_are_listed_with_their_sizes(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10, x=b"12345")
    (www / "10/files/a.tar").write_bytes(b"object")

    assert tree.names(10) == {
        "10/Manifest.MoM": len(mom(10)),
        "10/Manifest.os-core": len(OS_CORE),
        "10/files/a.tar": 6,
        "10/x": 5,
    }
    assert tree.names(20) == {}


def test_a_published_file_can_be_read_piece_by_piece(tree: PublishedTree) -> None:
    publish(tree, 10, x=b"12345")

    with tree.open("10/x") as file:
        assert (file.read(2), file.read()) == (b"12", b"345")


def test_a_missing_file_is_named(tree: PublishedTree, www: Path) -> None:
    with pytest.raises(BuildError, match=f"cannot read {www}/10/x: No such file"), tree.open("10/x"):
        pass


def test_a_tree_lies_where_the_configuration_says(tmp_path: Path) -> None:
    assert open_tree("", tmp_path / "www", TextReport()).shown == f"{tmp_path}/www"
    assert open_tree("/srv/mix", tmp_path / "www", TextReport()).shown == "/srv/mix"


def test_a_version_that_was_never_published_is_an_error(tree: PublishedTree) -> None:
    publish(tree, 10)

    with pytest.raises(BuildError, match="version 5 is not in") as caught:
        tree.version(5)

    assert "restore it" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"rubbish", mom(20)])
def test_a_damaged_mom_is_refused(tree: PublishedTree, www: Path, data: bytes) -> None:
    publish(tree, 10)
    (www / "10/Manifest.MoM").write_bytes(data)

    with pytest.raises(BuildError, match=r"10/Manifest\.MoM"):
        tree.version(10)


def test_a_damaged_latest_file_is_refused(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10)
    (www / "version/latest_version").write_text("10\n20")

    with pytest.raises(BuildError, match="latest_version is damaged"):
        tree.latest()


def test_an_empty_tree_has_no_version(tree: PublishedTree) -> None:
    assert tree.latest() == 0
    with pytest.raises(BuildError, match="nothing is published in"):
        tree.version(tree.latest())
    assert NothingPublished().manifest("os-core") is None


def test_the_size_of_a_version_is_the_sum_of_its_files(tree: PublishedTree, www: Path) -> None:
    publish(tree, 10, x=b"12345")

    assert total_size(www / "10") == (3, len(mom(10)) + len(OS_CORE) + 5)
