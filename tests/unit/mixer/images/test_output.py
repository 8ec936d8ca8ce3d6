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


def test_a_file_appears_when_it_is_complete_with_its_facts(tmp_path: Path) -> None:
    target = tmp_path / "image"

    with output.writing(target, {"version": 10}) as part:
        part.write_bytes(b"content")
        assert names(tmp_path) == ["image.json.part", "image.part"]

    assert names(tmp_path) == ["image", "image.json"]
    assert target.read_bytes() == b"content"
    assert json.loads((tmp_path / "image.json").read_text()) == {"version": 10}


def test_an_existing_file_stays_until_then(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"former")

    with output.writing(target, {}) as part:
        part.write_bytes(b"content")
        assert target.read_bytes() == b"former"

    assert target.read_bytes() == b"content"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), BuildError("no")])
def test_after_a_failure_there_is_what_was_before(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"former")
    (tmp_path / "image.json").write_text("former")

    def fail() -> None:
        with output.writing(target, {}) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()

    assert names(tmp_path) == ["image", "image.json"]
    assert (target.read_bytes(), (tmp_path / "image.json").read_text()) == (b"former", "former")


def test_what_an_interrupted_run_left_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "image.part").write_bytes(b"left over")

    with output.writing(tmp_path / "image", {}) as part:
        assert part.read_bytes() == b""


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "image.part").symlink_to("precious")

    with output.writing(tmp_path / "image", {}) as part:
        part.write_bytes(b"content")

    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "image").is_symlink()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(BuildError, match=r"cannot write .*/image: No space left on device") as caught,
        output.writing(tmp_path / "image", {}),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "free some space" in caught.value.hint
    assert names(tmp_path) == []


def test_facts_without_room_leave_what_was_before(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"former")
    (tmp_path / "image.json").write_text("former")
    tiny = resource.getrlimit(resource.RLIMIT_FSIZE)

    # A file larger than allowed fails as one without room does; the image is smaller than its facts.
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, tiny[1]))
    try:
        with (
            pytest.raises(BuildError, match=r"cannot write .*/image: File too large"),
            output.writing(target, {"what": "more than ten bytes"}) as part,
        ):
            part.write_bytes(b"content")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, tiny)
        signal.signal(signal.SIGXFSZ, signal_before)

    assert names(tmp_path) == ["image", "image.json"]
    assert (target.read_bytes(), (tmp_path / "image.json").read_text()) == (b"former", "former")


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(BuildError, match=r"cannot write .*/nowhere/image: No such file"),
        output.writing(tmp_path / "nowhere/image", {}),
    ):
        pass


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not a file"), output.writing(tmp_path, {}):
        pass
    with pytest.raises(BuildError, match="/dev/null is not a file"), output.writing(Path("/dev/null"), {}):
        pass
