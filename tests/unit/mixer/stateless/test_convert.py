"""The conversion as a whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixer.composition import Composition
from mixer.errors import BuildError
from mixer.lint import lint
from mixer.stateless import EMPTY_DIRECTORIES
from mixer.stateless.etc import is_never_shipped
from swupd.formats import filehash

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


def digest(root: Path) -> dict[str, tuple[str, str]]:
    """Path -> (hash, text of a link) of everything in a root."""
    return {
        found.name: (filehash.hash_path(found.path), os.readlink(found.path) if os.path.islink(found.path) else "")
        for found in filehash.walk(str(root))
    }


def fill(system: Any) -> None:
    system.file("/etc/nginx/nginx.conf", "x", bundle="web")
    system.file("/etc/pam.d/su", "auth required pam_unix.so\n")
    system.link("/etc/mtab", "../proc/self/mounts")
    system.link("/etc/systemd/system/multi-user.target.wants/a.service", "/usr/lib/systemd/system/a.service")
    system.directory("/var/cache/man", mode=0o2755, owner=(6, 12))
    system.directory("/var/lib/nginx", bundle="web", owner=(102, 12))
    system.file("/var/lib/nginx/seed", "seed", bundle="web", mode=0o600)
    system.file("/var/log/wtmp", mode=0o664)
    system.link("/var/spool/mail", "../mail")
    system.file("/root/.bashrc", "PS1=x")
    system.directory("/usr/local/bin")


def test_the_empty_directories_belong_to_os_core(system: Any) -> None:
    system.directory("/srv/www", bundle="web")
    bundles = system.convert()
    for path, mode in EMPTY_DIRECTORIES.items():
        assert system.place(path).stat().st_mode & 0o7777 == mode
        assert list(system.place(path).iterdir()) == []
        assert path in bundles["os-core"].files
        assert path not in bundles["web"].files


def test_a_link_in_the_place_of_an_empty_directory_is_not_followed(system: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o700)
    system.link("/mnt", str(tmp_path / "outside"))
    with pytest.raises(BuildError, match="/mnt is in the root, but not as a directory"):
        system.convert()
    assert (tmp_path / "outside").stat().st_mode & 0o7777 == 0o700


def test_a_link_in_the_place_of_a_generated_file_is_not_followed(system: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    system.link("/usr/lib/tmpfiles.d/mix-os-core.conf", str(tmp_path / "outside"))
    system.directory("/var/x")
    system.convert()
    assert (tmp_path / "outside").read_text() == "mine"
    assert "d /var/x" in system.read("/usr/lib/tmpfiles.d/mix-os-core.conf")


def test_lists_name_what_is_in_the_root_and_are_sorted_with_parents(system: Any) -> None:
    fill(system)
    for bundle in system.convert().values():
        paths = list(bundle.files)
        assert paths == sorted(paths, key=os.fsencode)
        assert all(os.path.lexists(system.place(path)) for path in paths)
        assert all(path.rpartition("/")[0] in {"", *paths} for path in paths)


def test_everything_in_the_root_is_in_a_list(system: Any) -> None:
    fill(system)
    listed = set().union(*(bundle.files for bundle in system.convert().values()))
    assert digest(system.root).keys() <= listed


def test_a_converted_system_has_no_findings(system: Any) -> None:
    fill(system)
    assert lint(Composition(10, system.root, system.convert())) == []


NAMES = st.sampled_from(["a", "b.conf", "hostname", "machine-id", "x~", "common-auth", "ä %x"])
PLACES = st.sampled_from(["", "pam.d/", "systemd/system/", "systemd/system/a.target.wants/", "ssh/", "d/e/", "d/"])
FILES = st.dictionaries(
    st.tuples(PLACES, NAMES).map("".join),
    st.tuples(st.sampled_from(["", "x", "@include common-auth\n"]), st.sampled_from([0o644, 0o600, 0o755])),
    max_size=12,
)
LINKS = st.dictionaries(
    st.tuples(PLACES, st.sampled_from(["link", "b.service"])).map("".join),
    st.sampled_from(["/dev/null", "/usr/lib/systemd/system/a.service", "../a.service", "x"]),
    max_size=4,
)


@needs_root
@given(FILES, LINKS, st.sampled_from([(0, 0), (6, 12)]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_conversion_is_deterministic_and_loses_no_file(
    system: Any,
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, tuple[str, int]],
    links: dict[str, str],
    owner: tuple[int, int],
) -> None:
    place = tmp_path_factory.mktemp("example")
    one = system.copy(place / "one")
    for name, (text, mode) in files.items():
        if not one.place(f"/etc/{name}").is_dir():
            one.file(f"/etc/{name}", text, mode=mode, owner=owner)
    for name, target in links.items():
        one.link(f"/etc/{name}", target)
    before = digest(one.root / "etc")
    written = [f"/{name}" for name in {*files, *links} if not one.place(f"/etc/{name}").is_dir()]
    other = one.copy(place / "other")
    for name in before:
        os.lchown(f"{other.root}/etc{name}", *os.lstat(f"{one.root}/etc{name}")[4:6])

    lists = one.convert()

    assert other.convert() == lists
    after = digest(one.root)
    assert digest(other.root) == after
    for name in written:
        places = [f"/usr/share/factory/etc{name}"]
        if name.startswith(("/pam.d/", "/systemd/")):
            places.append(f"/usr/lib{name}")
        found = [path for path in places if path in after and path in lists["os-core"].files]
        assert len(found) == (0 if is_never_shipped(name[1:]) else 1)
        if found and not one.place(found[0]).is_symlink():
            assert after[found[0]] == before[name]


def state(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """What systemd made of /etc, /var and /root: path -> type with mode, owner, group, content."""
    result = {}
    for found in filehash.walk(str(root)):
        if found.name.startswith(("/etc/", "/var/", "/root/")) and found.name != "/etc/.pwd.lock":
            path = Path(found.path)
            text = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
            result[found.name] = (found.status.st_mode, found.status.st_uid, found.status.st_gid, text)
    return result


def test_where_each_path_came_from_is_remembered(system: Any) -> None:
    system.file("/usr/bin/tool")
    system.file("/etc/tool/conf", bundle="web")
    system.file("/etc/machine-id")
    system.file("/var/lib/tool", "state", bundle="web")
    system.convert()
    origins = {path: origin for path, origin in system.origins.items() if not system.place(path).is_dir()}
    assert origins["/usr/bin/tool"] == "/usr/bin/tool"
    assert origins["/usr/share/factory/etc/tool/conf"] == "/etc/tool/conf"
    assert origins["/usr/share/factory/var/lib/tool"] == "/var/lib/tool"
    assert "/etc/machine-id" not in origins.values()
    assert [path for path in origins if path.startswith("/usr/lib/tmpfiles.d/")] == []


@needs_root
def test_systemd_makes_users_and_state_again_and_again(system: Any) -> None:
    fill(system)
    system.convert()

    def boot() -> dict[str, tuple[int, int, int, str]]:
        for argv in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
            subprocess.run([*argv, f"--root={system.root}"], check=True, stdout=subprocess.DEVNULL)
        return state(system.root)

    first = boot()
    assert {path: found[:3] for path, found in first.items() if path.startswith(("/var", "/root"))} == {
        "/root/.bashrc": (0o100644, 0, 0),
        "/var/cache": (0o040755, 0, 0),
        "/var/cache/man": (0o042755, 6, 12),
        "/var/lib": (0o040755, 0, 0),
        "/var/lib/nginx": (0o040755, 102, 12),
        "/var/lib/nginx/seed": (0o100600, 0, 0),
        "/var/log": (0o040755, 0, 0),
        "/var/log/wtmp": (0o100664, 0, 0),
        "/var/spool": (0o040755, 0, 0),
        "/var/spool/mail": (0o120777, 0, 0),
        "/var/usrlocal": (0o040755, 0, 0),
        "/var/usrlocal/bin": (0o040755, 0, 0),
    }
    assert first["/var/lib/nginx/seed"][3] == "seed"
    assert sorted(first["/etc/passwd"][3].splitlines()) == sorted(
        system.read("/usr/share/factory/etc/passwd").splitlines()
    )
    for directory in ("etc", "var", "root"):
        subprocess.run(["find", system.root / directory, "-mindepth", "1", "-delete"], check=True)
    assert boot() == first
    assert boot() == first
