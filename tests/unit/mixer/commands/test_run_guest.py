from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixer import cli
from mixer.guest import run
from mixer.guest.run import Wish


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "guest.img"
    image.write_bytes(b"image")
    facts = {"type": "guest-erofs", "bundles": ["guest-minimal"], "init": "/init", "version": 10, "mom": "a" * 64}
    Path(f"{image}.json").write_text(json.dumps(facts))
    return image


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[Wish]:
    """What would be run; the exit status is 7."""
    wishes: list[Wish] = []

    def note(wish: Wish, report: object) -> int:
        wishes.append(wish)
        return 7

    monkeypatch.setattr(run, "run", note)
    return wishes


def test_the_words_of_the_command_are_taken_as_they_are(image: Path, wishes: list[Wish], tmp_path: Path) -> None:
    words = ["sh", "--", "--memory", "-w", "", "\udcff"]
    status = cli.main(["run-guest", str(image), "--kernel", str(tmp_path), "--memory", "1G", "--", *words])
    assert status == 7
    assert wishes[0].command == tuple(words)
    assert wishes[0].memory == 1 << 30


def test_without_words_there_is_no_command(image: Path, wishes: list[Wish], tmp_path: Path) -> None:
    cli.main(["run-guest", "--kernel", str(tmp_path), str(image)])
    assert wishes[0].command == ()
    assert (wishes[0].model, wishes[0].cpus, wishes[0].timeout, wishes[0].dax) == ("q35", 1, None, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "256"], "--memory '256' is not a size"),
        (["--memory", "1M"], "--memory '1M' is not a size"),
        (["--cpus", "0"], "--cpus must be between 1 and 64"),
        (["--timeout", "0"], "--timeout must be between 1"),
    ],
)
def test_a_value_that_is_none_is_one_line(
    image: Path, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run-guest", str(image), "--kernel", str(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err


def test_an_image_of_no_type_is_one_line_with_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run-guest", str(tmp_path / "missing.img"), "--", "true"]) == 1
    assert "mixer build image --type guest-erofs" in capsys.readouterr().err


def test_other_commands_take_no_words_after_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["versions", "--", "word"])
    assert "no words after --" in capsys.readouterr().err
