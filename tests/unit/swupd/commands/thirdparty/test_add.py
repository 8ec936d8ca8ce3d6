"""Adding a repository is a transaction: it is there and trusted, or nothing is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from swupd.commands.thirdparty import add
from swupd.errors import ExitCode
from swupd.formats import layout
from swupd.fs import Directory

CHANGES = ("write_file", "make_directory", "set_attributes", "hard_link", "rename", "unlink", "remove_directory")
Machine = Any
Repository = Any


def test_a_repository_is_installed_and_listed(machine: Machine, mine: Repository) -> None:
    machine.run("add", "Mine", mine.url, "--yes")
    assert machine.installed("mine") == {"os-core"}
    assert (machine.own / "repo.ini").read_text() == f"[mine]\nurl={mine.url}\n"
    machine.run("list")
    assert machine.out == f"mine: {mine.url}\n"


def test_the_certificate_is_shown_before_it_is_trusted(machine: Machine, mine: Repository) -> None:
    machine.run("add", "mine", mine.url, "--yes")
    assert "issuer:      CN=Publisher of mine" in machine.out
    assert "subject:     CN=Publisher of mine" in machine.out
    assert "fingerprint: SHA256 " in machine.out
    assert mine.certificate.splitlines()[1] in machine.out


@pytest.mark.parametrize("answer", [["--assume=no"], []])
def test_a_certificate_that_nobody_accepts_is_24_and_leaves_nothing(
    answer: list[str], machine: Machine, mine: Repository
) -> None:
    before = machine.files()
    machine.run("add", "mine", mine.url, *answer, status=ExitCode.TLS)
    assert machine.files() == before
    assert machine.errors == [f"Error: the certificate of {mine.url} is not trusted; nothing was changed"]


def test_what_is_installed_is_signed_by_the_accepted_certificate(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    # The server shows one certificate and signs with another one.
    mine.bundles["os-core"].files[layout.CERTIFICATE] = other.certificate
    mine.publish(20)
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.SIGNATURE)
    assert not (machine.own / "repo.ini").exists()
    assert not machine.prefix("mine").exists()
    assert not (machine.state / "3rd-party/mine").exists()


def test_a_certificate_of_the_command_line_is_not_asked_for(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    (tmp_path / "their.pem").write_text(mine.certificate)
    machine.run("add", "mine", mine.url, "--certpath", str(tmp_path / "their.pem"), "--assume=no")
    assert machine.installed("mine") == {"os-core"}


def test_a_wrong_certificate_of_the_command_line_is_21(
    machine: Machine, mine: Repository, other: Repository, tmp_path: Path
) -> None:
    (tmp_path / "their.pem").write_text(other.certificate)
    machine.run("add", "mine", mine.url, "--certpath", str(tmp_path / "their.pem"), status=ExitCode.SIGNATURE)
    assert not machine.prefix("mine").exists()


def test_without_signature_checks_nothing_is_asked(machine: Machine, mine: Repository) -> None:
    machine.run("add", "mine", mine.url, "--nosigcheck", "--assume=no")
    assert machine.installed("mine") == {"os-core"}


def test_a_repository_without_certificate_is_24(machine: Machine, mine: Repository) -> None:
    del mine.bundles["os-core"].files[layout.CERTIFICATE]
    mine.publish(20)
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.TLS)
    assert "has no /usr/share/clear/update-ca/Swupd_Root.pem" in machine.err


def test_a_certificate_that_is_none_is_24(machine: Machine, mine: Repository) -> None:
    mine.bundles["os-core"].files[layout.CERTIFICATE] = "nonsense"
    mine.publish(20)
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.TLS)
    assert "cannot be used" in machine.err


def test_a_manifest_that_is_not_the_one_of_the_version_is_24(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    name = layout.manifest_tar(10, layout.OS_CORE)
    (mine.publisher.directory / name).write_bytes((other.publisher.directory / name).read_bytes())
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.TLS)
    assert "the manifest of os-core is not the one of version 10" in machine.err
    assert not machine.prefix("mine").exists()


def test_a_server_that_is_not_there_is_16(machine: Machine, tmp_path: Path) -> None:
    machine.run("add", "mine", f"file://{tmp_path}/nowhere", "--yes", status=ExitCode.SERVER)


def test_a_name_that_is_taken_is_15(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine)
    machine.run("add", "MINE", other.url, "--yes", status=ExitCode.INVALID_OPTION)
    assert machine.errors == [f"Error: there is a 3rd-party repository 'mine' already: {mine.url}"]


def test_a_url_that_is_in_use_is_15_before_anything_is_done(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    before = machine.files()
    machine.run("add", "again", f"{mine.url}/", "--yes", status=ExitCode.INVALID_OPTION)
    assert machine.files() == before


def test_an_unencrypted_url_needs_permission(machine: Machine) -> None:
    machine.run("add", "mine", "http://localhost:9/update", "--yes", status=ExitCode.INVALID_OPTION)
    assert "--allow-insecure-http" in machine.err


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "a b", "", "x" * 65, "ü"])
def test_a_name_that_is_none_is_15(name: str, machine: Machine, mine: Repository) -> None:
    machine.run("add", "--", name, mine.url, status=ExitCode.INVALID_OPTION)


def test_content_of_somebody_else_is_37_unless_forced(machine: Machine, mine: Repository) -> None:
    machine.prefix("mine").mkdir(parents=True)
    (machine.prefix("mine") / "file").touch()
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.THIRD_PARTY_REPOSITORY)
    assert (machine.prefix("mine") / "file").exists()
    machine.run("add", "mine", mine.url, "--yes", "--force")
    assert not (machine.prefix("mine") / "file").exists()


def test_a_link_in_the_place_of_the_content_is_not_followed(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away/file").touch()
    (machine.own / "bundles").mkdir(parents=True)
    machine.prefix("mine").symlink_to(tmp_path / "away")
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.THIRD_PARTY_REPOSITORY)
    machine.run("add", "mine", mine.url, "--yes", "--force")
    assert sorted(path.name for path in (tmp_path / "away").iterdir()) == ["file"]
    assert not machine.prefix("mine").is_symlink()


def test_a_link_in_the_place_of_our_directory_is_refused(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (machine.root / "opt").symlink_to(tmp_path / "away")
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.INSTALL)
    assert list((tmp_path / "away").iterdir()) == []


def test_a_repository_whose_files_are_broken_leaves_nothing(machine: Machine, mine: Repository) -> None:
    for path in (mine.publisher.directory / "10/files").iterdir():
        if b"core" in path.read_bytes():
            path.write_bytes(b"nonsense")
    for path in (mine.publisher.directory / "10").glob("pack-*"):
        path.unlink()
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.DOWNLOAD)
    assert not machine.prefix("mine").exists()
    assert not list((machine.state / "3rd-party").iterdir())


def test_files_with_special_bits_in_os_core_need_an_answer(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    mine.bundles["os-core"].modes = {"/usr/share/core": 0o104755}
    mine.publish(20)
    (tmp_path / "their.pem").write_text(mine.certificate)
    machine.run("add", "mine", mine.url, "--certpath", str(tmp_path / "their.pem"), status=ExitCode.FILE_INVALID)
    assert not machine.prefix("mine").exists()


def test_the_accepted_certificate_is_not_left_in_the_state_directory(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    assert not list(machine.state.rglob("*.pem"))


def test_a_killed_addition_is_removed_by_the_next_command(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    killed_in("swupd.commands.thirdparty.add.Host.register", machine.argv("add", "mine", mine.url, "--yes"))
    assert machine.installed("mine") == {"os-core"}
    machine.add("other", other)
    assert "A change of repository mine was interrupted" in machine.out
    assert not machine.prefix("mine").exists()
    assert sorted(path.name for path in (machine.state / "3rd-party").iterdir()) == ["other"]
    machine.run("add", "mine", mine.url, "--yes")


def test_an_addition_that_was_killed_after_the_entry_is_complete(machine: Machine, mine: Repository) -> None:
    killed_in("swupd.commands.thirdparty.add.Host.settle", machine.argv("add", "mine", mine.url, "--yes"))
    machine.run("bundle-add", "tool")
    assert machine.installed("mine") == {"os-core", "tool"}
    assert not list((machine.state / "3rd-party").glob(".*"))


def test_an_addition_that_is_killed_at_any_call_is_finished_or_undone(machine: Machine, mine: Repository) -> None:
    calls = 1
    while killed_at_call(calls, machine.argv("add", "mine", mine.url, "--yes")):
        machine.run("clean")
        machine.run("list", "--quiet")
        is_there = machine.out != ""
        assert machine.prefix("mine").exists() == is_there, calls
        assert (machine.state / "3rd-party/mine").exists() == is_there, calls
        assert not list((machine.state / "3rd-party").glob(".*")), calls
        if is_there:
            assert machine.installed("mine") == {"os-core"}
            machine.run("remove", "mine")
        calls += 4
    assert calls > 50


def test_an_interrupted_addition_leaves_nothing(
    machine: Machine, mine: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(add.os_install, "run", interrupt)
    machine.run("add", "mine", mine.url, "--yes", status=130)
    assert not machine.prefix("mine").exists()
    assert not list((machine.state / "3rd-party").iterdir())


def test_the_json_stream_is_one_array(machine: Machine, mine: Repository) -> None:
    machine.run("add", "mine", mine.url, "--yes", "--json-output")
    records = json.loads(machine.out)
    assert records[0] == {"type": "start", "section": "third-party-add"}
    assert records[-1] == {"type": "end", "section": "third-party-add", "status": 0}


def test_quietly_nothing_is_printed(machine: Machine, mine: Repository) -> None:
    machine.run("add", "mine", mine.url, "--yes", "--quiet")
    assert (machine.out, machine.err) == ("", "")


def test_a_damaged_list_is_15_with_file_and_line(machine: Machine, mine: Repository) -> None:
    machine.own.mkdir(parents=True)
    (machine.own / "repo.ini").write_text("[other]\nurl=https://example.org\nnonsense\n")
    machine.run("add", "mine", mine.url, "--yes", status=ExitCode.INVALID_OPTION)
    assert f"{machine.own}/repo.ini:3: 'nonsense' does not belong here" in machine.err


def killed_at_call(number: int, argv: list[str]) -> bool:
    """Run a command in a process that ends at once before change `number` of a file system; whether it came there."""
    pid = os.fork()
    if pid == 0:
        left = number

        def counting(change: Callable[..., None]) -> Callable[..., None]:
            def counted(*args: object, **kwargs: object) -> None:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(9)
                change(*args, **kwargs)

            return counted

        for name in CHANGES:
            setattr(Directory, name, counting(getattr(Directory, name)))
        try:
            os._exit(main(argv))
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9)
    return status == 9


def killed_in(function: str, argv: list[str]) -> None:
    """Run a command in a process of its own that is killed when it is about to call `function`."""
    module, owner, name = function.rsplit(".", 2)
    program = f"""
import os, signal, sys
from importlib import import_module
from swupd.cli import main
owner = import_module({module!r}).{owner}
owner.{name} = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
    environment: dict[str, str] = {**os.environ, "SWUPD_CONFIG_PATH": ""}
    done = subprocess.run([sys.executable, "-c", program, *argv], check=False, capture_output=True, env=environment)
    assert done.returncode == -9, done.stderr
