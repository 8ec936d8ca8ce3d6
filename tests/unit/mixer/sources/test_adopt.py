"""Who gets the paths that no package lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixer.sources.adopt import adopt


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.owners: dict[str, tuple[str, ...]] = {}

    def owned(self, path: str, *packages: str) -> None:
        self.write(path)
        self.owners[path.rstrip("/")] = packages

    def write(self, path: str) -> None:
        name, _, target = path.partition(" -> ")
        place = self.path / name.strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(target)
        elif name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text("")

    def owner(self, path: str) -> str | None:
        return adopt(str(self.path), self.owners).owner.get(path)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root")
    root.owned("/usr/", "base", "python")
    return root


def test_a_compiled_file_belongs_to_the_owner_of_its_source(root: Root) -> None:
    root.owned("/usr/lib/python3/", "python", "requests")
    root.owned("/usr/lib/python3/api.py", "requests")
    for name in ("api.cpython-311.pyc", "api.cpython-311.opt-1.pyc"):
        root.write(f"/usr/lib/python3/__pycache__/{name}")
        assert root.owner(f"/usr/lib/python3/__pycache__/{name}") == "requests"


def test_a_link_belongs_to_the_owner_of_what_it_finally_leads_to(root: Root) -> None:
    root.owned("/usr/share/certificates/a.crt", "certificates")
    root.owned("/etc/ssl/", "openssl", "certificates")
    root.write("/etc/ssl/a.pem -> /usr/share/certificates/a.crt")
    root.write("/etc/ssl/0815.0 -> a.pem")
    assert root.owner("/etc/ssl/0815.0") == "certificates"


def test_a_file_belongs_to_the_only_owner_of_the_nearest_owned_directory(root: Root) -> None:
    root.owned("/usr/lib/modules/6.1/", "kernel")
    root.write("/usr/lib/modules/6.1/extra/made/modules.dep")
    assert root.owner("/usr/lib/modules/6.1/extra/made/modules.dep") == "kernel"


def test_local_additions_belong_to_the_owner_of_the_profile_that_they_extend(root: Root) -> None:
    root.owned("/etc/apparmor.d/", "man-db", "tcpdump")
    root.owned("/etc/apparmor.d/usr.bin.tcpdump", "tcpdump")
    root.write("/etc/apparmor.d/local/usr.bin.tcpdump")
    assert root.owner("/etc/apparmor.d/local/usr.bin.tcpdump") == "tcpdump"


def test_a_directory_of_several_packages_adopts_nothing(root: Root) -> None:
    root.write("/usr/made")
    result = adopt(str(root.path), root.owners)
    assert result.owner == {}
    assert result.unowned == ("/usr/made",)


def test_a_rule_by_hand_counts_only_if_its_package_is_installed(root: Root) -> None:
    root.owned("/etc/ssh/", "openssh-client")
    root.write("/etc/ssh/sshd_config")
    assert root.owner("/etc/ssh/sshd_config") == "openssh-client"
    root.owned("/usr/sbin/sshd", "openssh-server")
    assert root.owner("/etc/ssh/sshd_config") == "openssh-server"


def test_a_directory_without_an_owner_follows_its_content(root: Root) -> None:
    root.owned("/usr/lib/unit", "daemon")
    root.write("/etc/wants/unit -> /usr/lib/unit")
    result = adopt(str(root.path), root.owners)
    assert result.owner == {"/etc/wants/unit": "daemon"}
    assert result.unowned == ()


def test_an_empty_directory_without_an_owner_is_nobodys(root: Root) -> None:
    root.write("/srv/")
    assert adopt(str(root.path), root.owners).unowned == ("/srv",)


def test_a_link_to_nowhere_is_nobodys(root: Root) -> None:
    root.write("/etc/mtab -> ../proc/self/mounts")
    assert adopt(str(root.path), root.owners).unowned == ("/etc/mtab",)


def test_nothing_is_decided_about_what_packages_own(root: Root) -> None:
    root.owned("/usr/bin/python3", "python")
    assert "/usr/bin/python3" not in adopt(str(root.path), root.owners).owner
