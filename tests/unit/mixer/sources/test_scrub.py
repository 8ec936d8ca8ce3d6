"""What never ships."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from mixer.sources.scrub import convert_capabilities, flatten_alternatives, is_unwanted, scrub

CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def write(root: Path, *paths: str) -> None:
    for path in paths:
        name, _, target = path.partition(" -> ")
        place = root / name.strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(target)
        elif name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(name)


def names(root: Path) -> set[str]:
    return {f"/{path.relative_to(root)}" for path in root.rglob("*")}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_rsa_key.pub",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc/shadow-",
        "/etc/.pwd.lock",
        "/etc/rc2.d/S01ssh",
        "/etc/apt/sources.list.d/0000mix.sources",
        "/etc/systemd/system/timers.target.wants/apt-daily.timer",
        "/var/lib/dpkg/status",
        "/var/lib/dpkg",
        "/var/cache/man/index.db",
        "/var/log/nginx/access.log",
        "/var/www/html/index.html",
        "/run/lock",
        "/dev/null",
        "/vmlinuz",
        "/etc/adduser.conf.dpkg-dist",
    ],
)
def test_state_and_identities_never_ship(path: str) -> None:
    assert is_unwanted(path, is_file=True, owned=set())


@pytest.mark.parametrize("path", ["/etc/ssh/sshd_config", "/etc/shadow", "/usr/bin/vi", "/etc/rc.local", "/etc/mtab"])
def test_content_ships(path: str) -> None:
    assert not is_unwanted(path, is_file=True, owned=set())


def test_below_var_the_directories_of_packages_stay_and_their_files_go() -> None:
    owned = {"/var/lib/nginx", "/var/log/nginx", "/var/lib/nginx/state", "/var/www/page"}
    assert not is_unwanted("/var/lib/nginx", is_file=False, owned=owned)
    assert is_unwanted("/var/lib/nginx/state", is_file=True, owned=owned)
    assert not is_unwanted("/var/www/page", is_file=True, owned=owned)
    assert is_unwanted("/var/lib/made-by-a-script", is_file=False, owned=owned)
    assert not is_unwanted("/var/mail", is_file=False, owned=owned)


def test_scrubbing_removes_trees_and_keeps_what_ships(tmp_path: Path) -> None:
    write(
        tmp_path,
        "/etc/passwd",
        "/etc/hostname",
        "/var/lib/dpkg/info/a.list",
        "/dev/shm/",
        "/usr/bin/a",
        "/etc/rc0.d/K -> x",
    )
    scrub(tmp_path, {"/etc/rc0.d", "/var", "/var/lib", "/var/lib/dpkg"})
    assert names(tmp_path) == {
        *("/etc", "/etc/passwd", "/etc/rc0.d", "/var", "/var/lib", "/dev", "/usr", "/usr/bin", "/usr/bin/a"),
    }


def test_a_private_key_that_a_script_made_goes_and_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "/etc/daemon/")
    for name in ("made", "shipped"):
        (tmp_path / "etc/daemon" / name).write_text("-----BEGIN RSA PRIVATE KEY-----\n")
    assert scrub(tmp_path, {"/etc/daemon/shipped"}) == ["/etc/daemon/made"]
    assert "/etc/daemon/shipped" in names(tmp_path)


def test_links_to_a_removed_certificate_go_with_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        "/etc/ssl/certs/8a7b.0 -> ssl-cert-snakeoil.pem",
        "/etc/ssl/certs/good.pem -> /usr/share/good.crt",
        "/etc/ssl/certs/good.0 -> good.pem",
        "/usr/share/good.crt",
    )
    scrub(tmp_path, set())
    assert {path.name for path in (tmp_path / "etc/ssl/certs").iterdir()} == {"good.pem", "good.0"}


def test_the_machine_id_is_left_empty(tmp_path: Path) -> None:
    write(tmp_path, "/etc/machine-id")
    scrub(tmp_path, set())
    assert (tmp_path / "etc/machine-id").read_bytes() == b""


def test_links_of_a_merged_root_that_lead_to_nothing_go(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib32/", "/usr/lib64/ld.so", "/lib32 -> usr/lib32", "/lib64 -> usr/lib64")
    scrub(tmp_path, set())
    assert names(tmp_path) == {"/usr", "/usr/lib64", "/usr/lib64/ld.so", "/lib64"}


def test_alternatives_become_relative_links_to_the_choice(tmp_path: Path) -> None:
    write(
        tmp_path,
        "/usr/bin/vim.tiny",
        "/usr/bin/vi -> /etc/alternatives/vi",
        "/etc/alternatives/vi -> /usr/bin/vim.tiny",
        "/usr/share/man/vi.1 -> /etc/alternatives/vi.1",
        "/etc/alternatives/vi.1 -> /usr/share/man/vim.1",
        "/usr/lib/mta -> /etc/alternatives/mta",
        "/etc/alternatives/mta -> /bin/mta",
        "/bin -> usr/bin",
        "/usr/bin/mta",
    )
    assert flatten_alternatives(tmp_path) == 3
    assert os.readlink(tmp_path / "usr/bin/vi") == "vim.tiny"
    assert os.readlink(tmp_path / "usr/lib/mta") == "../bin/mta"
    assert not os.path.lexists(tmp_path / "usr/share/man/vi.1")
    assert not os.path.lexists(tmp_path / "etc/alternatives")


@pytest.mark.skipif(os.geteuid() != 0, reason="sets capabilities")
def test_a_capability_becomes_setuid_only_where_the_package_provides_for_that(tmp_path: Path) -> None:
    write(tmp_path, "/usr/bin/ping", "/usr/bin/capture", "/usr/bin/plain", "/var/lib/dpkg/info/")
    info = tmp_path / "var/lib/dpkg/info"
    (info / "ping.postinst").write_text("setcap cap_net_raw+ep /bin/ping || chmod u+s /bin/ping\n")
    (info / "capture.postinst").write_text("# chmod u+s would be unsafe\nsetcap cap_net_raw+ep /usr/bin/capture\n")
    for name in ("ping", "capture"):
        (tmp_path / "usr/bin" / name).chmod(0o755)
        os.setxattr(tmp_path / "usr/bin" / name, "security.capability", CAP_NET_RAW)
    owners = {"/usr/bin/ping": ("ping",), "/usr/bin/capture": ("capture",), "/usr/bin/plain": ("plain",)}

    notes = convert_capabilities(tmp_path, owners)

    modes = {name: stat.S_IMODE((tmp_path / "usr/bin" / name).stat().st_mode) for name in ("ping", "capture")}
    assert modes == {"ping": 0o4755, "capture": 0o755}
    assert os.listxattr(tmp_path / "usr/bin/ping") == []
    assert len(notes) == 2
    assert notes[0].startswith("/usr/bin/capture loses")
    assert notes[1].startswith("/usr/bin/ping is setuid")
