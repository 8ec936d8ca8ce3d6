"""The builder's errors."""

from __future__ import annotations

import inspect
from pathlib import Path

from mixer import errors
from mixer.errors import ConfigError, UnknownPackageError
from swupd.errors import ExitCode


def test_every_error_ends_the_command_with_status_1() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.MixError)]
    assert len(classes) == 8
    assert {value.exit_code for value in classes} == {ExitCode.NO}


def test_a_located_error_begins_with_its_place() -> None:
    assert str(ConfigError("builder.yaml", 7, "wrong", hint="mend it")) == "builder.yaml: line 7: wrong"
    assert str(ConfigError(Path("builder.yaml"), 0, "wrong")) == "builder.yaml: wrong"


def test_unknown_packages_are_named_in_order() -> None:
    assert str(UnknownPackageError(["b", "a"])) == "unknown packages a, b"
    assert str(UnknownPackageError(["a"], hint="x")) == "unknown package a"
