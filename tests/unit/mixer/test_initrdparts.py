from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.initrdparts import Modules, file_name, of_root

RELEASE = "6.1"
NAMES = st.text("abcdefgh-_", min_size=1, max_size=8).map(lambda name: f"kernel/{name}.ko")


def modules(files: dict[str, bytes]) -> Modules:
    def read(name: str) -> bytes:
        return files[name.removeprefix(f"/usr/lib/modules/{RELEASE}/")]

    return Modules(read, RELEASE)


@settings(deadline=None)
@given(st.lists(NAMES, unique_by=file_name, min_size=1, max_size=12), st.data())
def test_every_module_comes_once_and_after_those_that_it_needs(paths: list[str], data: st.DataObject) -> None:
    """A module needs only what stands before it, and its line names all of that, the last first, as depmod does it."""
    needs = {
        path: data.draw(st.lists(st.sampled_from(paths[:at]), unique=True) if at else st.just([]))
        for at, path in enumerate(paths)
    }
    closed: dict[str, list[str]] = {}
    for path in paths:
        below = {other for needed in needs[path] for other in (needed, *closed[needed])}
        closed[path] = sorted(below, key=paths.index, reverse=True)
    text = "".join(f"{path}: {' '.join(closed[path])}\n" for path in paths)
    found = modules({"modules.dep": text.encode(), "modules.builtin": b""})
    order = found.order([file_name(path).removesuffix(".ko") for path in reversed(paths)])
    assert sorted(order) == sorted(paths)
    assert all(order.index(needed) < order.index(path) for path in paths for needed in needs[path])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_list_of_dependencies_is_read_or_refused(text: bytes) -> None:
    try:
        modules({"modules.dep": text, "modules.builtin": b""}).order(["erofs"])
    except BuildError as error:
        assert "no text" in str(error)  # noqa: PT017 (both ways are good)


def test_files_outside_of_the_root_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "file").write_text("outside")
    (tmp_path / "root/link").symlink_to("../file")
    with pytest.raises(FileNotFoundError):
        of_root(tmp_path / "root")("/link")
