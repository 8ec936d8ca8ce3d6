from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from mixer.errors import BuildError
from mixer.images import output


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_file_appears_when_it_is_complete_with_what_is_known_about_it(tmp_path: Path) -> None:
    target = tmp_path / "image"

    with output.writing(target) as unfinished:
        unfinished.path.write_bytes(b"content")
        unfinished.facts = {"version": 10}
        unfinished.sbom = b"{}"
        assert names(tmp_path) == ["image.part"]

    assert names(tmp_path) == ["image", "image.json", "image.spdx.json"]
    assert target.read_bytes() == b"content"
    assert json.loads((tmp_path / "image.json").read_text()) == {"version": 10}
    assert (tmp_path / "image.spdx.json").read_bytes() == b"{}"


def test_an_existing_file_stays_until_then(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"former")

    with output.writing(target) as unfinished:
        unfinished.path.write_bytes(b"content")
        assert target.read_bytes() == b"former"

    assert target.read_bytes() == b"content"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), BuildError("no")])
def test_after_a_failure_there_is_what_was_before(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"former")
    (tmp_path / "image.json").write_text("former")

    def fail() -> None:
        with output.writing(target) as unfinished:
            unfinished.path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()

    assert names(tmp_path) == ["image", "image.json"]
    assert (target.read_bytes(), (tmp_path / "image.json").read_text()) == (b"former", "former")


def test_what_an_interrupted_run_left_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "image.part").write_bytes(b"left over")

    with output.writing(tmp_path / "image") as unfinished:
        assert unfinished.path.read_bytes() == b""


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "image.part").symlink_to("precious")

    with output.writing(tmp_path / "image") as unfinished:
        unfinished.path.write_bytes(b"content")

    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "image").is_symlink()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(BuildError, match=r"cannot write .*/image: No space left on device") as caught,
        output.writing(tmp_path / "image"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "free some space" in caught.value.hint
    assert names(tmp_path) == []


def test_facts_without_room_leave_what_was_before(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"former")
    (tmp_path / "image.json").write_text("former")
    tiny = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write() -> None:
        with output.writing(target) as unfinished:
            unfinished.facts = {"what": "more than ten bytes"}
            unfinished.path.write_bytes(b"content")

    # A file larger than allowed fails as one without room does; the image is smaller than its facts.
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, tiny[1]))
    try:
        with pytest.raises(BuildError, match=r"cannot write .*/image: File too large"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, tiny)
        signal.signal(signal.SIGXFSZ, signal_before)

    assert names(tmp_path) == ["image", "image.json"]
    assert (target.read_bytes(), (tmp_path / "image.json").read_text()) == (b"former", "former")


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(BuildError, match=r"cannot write .*/nowhere/image: No such file"),
        output.writing(tmp_path / "nowhere/image"),
    ):
        pass


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not a file"), output.writing(tmp_path):
        pass
    with pytest.raises(BuildError, match="/dev/null is not a file"), output.writing(Path("/dev/null")):
        pass


def test_a_directory_appears_when_it_is_complete_and_replaces_one_of_its_type(tmp_path: Path) -> None:
    target = tmp_path / "image"
    for content in ("former", "later"):
        with output.filling(target, "directory") as unfinished:
            (unfinished.path / content).write_text(content)
            unfinished.facts = {"type": "directory", "content": content}
        assert names(tmp_path) == ["image", "image.json"]
        assert names(target) == [content]
        assert output.read_facts(target)["content"] == content


def test_after_a_failure_there_is_the_former_directory(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with output.filling(target, "directory") as unfinished:
        (unfinished.path / "former").touch()
        unfinished.facts = {"type": "directory"}

    def fail() -> None:
        with output.filling(target, "directory") as unfinished:
            (unfinished.path / "half").touch()
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(BuildError, match=r"cannot write .*/image: Input/output error"):
        fail()

    assert names(tmp_path) == ["image", "image.json"]
    assert names(target) == ["former"]


@pytest.mark.parametrize("facts", [None, "{", "[]", '{"type": "oci"}'])
def test_a_directory_that_is_no_image_of_the_type_is_not_replaced(tmp_path: Path, facts: str | None) -> None:
    target = tmp_path / "image"
    target.mkdir()
    (target / "precious").touch()
    if facts is not None:
        (tmp_path / "image.json").write_text(facts)

    with (
        pytest.raises(BuildError, match="is there already, and is no image of the type directory"),
        output.filling(target, "directory"),
    ):
        pass

    assert names(target) == ["precious"]


def test_what_is_beside_an_image_is_replaced_when_it_was_changed_in_place(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with output.filling(target, "oci") as unfinished:
        unfinished.sbom = b"{}"

    with output.describing(target) as unfinished:
        (unfinished.path / "more").touch()
        unfinished.facts = {"type": "oci"}

    assert names(target) == ["more"]
    assert names(tmp_path) == ["image", "image.json"]


def test_an_image_that_could_not_be_changed_keeps_what_is_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with output.filling(target, "oci") as unfinished:
        unfinished.facts = {"type": "oci"}

    def fail() -> None:
        with output.describing(target):
            assert names(tmp_path) == ["image"], "a process that is killed here leaves no facts about another image"
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(BuildError, match=r"cannot write .*/image: Input/output error"):
        fail()

    assert output.read_facts(target) == {"type": "oci"}


def test_an_image_that_was_changed_never_has_the_former_facts(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with output.filling(target, "oci") as unfinished:
        unfinished.facts = {"type": "oci"}

    with pytest.raises(TypeError), output.describing(target) as unfinished:
        unfinished.facts = {"what": object()}

    assert names(tmp_path) == ["image"]
