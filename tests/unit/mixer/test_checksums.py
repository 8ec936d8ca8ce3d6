from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import checksums
from mixer.errors import BuildError

HASH = "a" * 64


def test_stock_programs_check_them(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/x").write_bytes(b"x")
    (tmp_path / "y").write_bytes(b"y")
    sums = checksums.of_files(tmp_path)
    (tmp_path / "checksums").write_bytes(checksums.serialise(sums))

    check = ["sha256sum", "--quiet", "--strict", "-c", "checksums"]
    subprocess.run(check, cwd=tmp_path, check=True)
    (tmp_path / "files/x").write_bytes(b"z")
    done = subprocess.run(check, cwd=tmp_path, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert "files/x: FAILED" in done.stdout


def test_the_list_does_not_name_itself_or_its_signature(tmp_path: Path) -> None:
    for name in ("checksums", "checksums.sig", "other"):
        (tmp_path / name).write_bytes(b"x")

    assert list(checksums.of_files(tmp_path)) == ["other"]


def test_bytes_and_files_have_the_same_sum(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")

    assert checksums.of(tmp_path / "x") == checksums.of(b"content")


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9./_-]{0,9}[a-z]", fullmatch=True), st.just(HASH)))
def test_what_was_written_is_read(sums: dict[str, str]) -> None:
    sums = {name: value for name, value in sums.items() if ".." not in name}
    data = checksums.serialise(sums)

    assert checksums.parse(data, "x") == sums
    assert checksums.serialise(checksums.parse(data, "x")) == data


@given(st.binary())
def test_anything_else_is_one_error(data: bytes) -> None:
    with suppress(BuildError):
        parsed = checksums.parse(data, "20/checksums")
        assert checksums.serialise(parsed).splitlines() == sorted(data.splitlines(), key=lambda line: line[66:])


@pytest.mark.parametrize(
    "line", [f"{HASH}  /x", f"{HASH}  ../x", f"{HASH}  a/../x", f"{HASH} x", "x", f"{HASH}  x\n{HASH}  x", f"{HASH}  "]
)
def test_names_that_lead_out_and_broken_lines_are_refused(line: str) -> None:
    with pytest.raises(BuildError, match="is not a checksum"):
        checksums.parse(f"{line}\n".encode(), "20/checksums")
