"""The exit codes are an interface: scripts and units depend on the numbers."""

from __future__ import annotations

import inspect
import re

import pytest

from swupd import errors

CODES = {
    "ProjectError": 1,
    "FormatError": 27,
    "ManifestError": 14,
    "ArchiveError": 18,
    "DeltaError": 27,
    "UpdateIndexError": 27,
    "SignatureError": 21,
    "UsageError": 15,
    "NotRootError": 1,
    "LockedError": 9,
    "BundleError": 3,
    "UnknownBundleError": 3,
    "RequiredBundleError": 2,
    "BundleNotInstalledError": 13,
    "ServerError": 16,
    "DownloadError": 17,
    "NotOnServerError": 17,
    "OfflineError": 17,
    "MomError": 4,
    "TlsError": 24,
    "VersionUnknownError": 20,
    "ClockError": 22,
    "DiskSpaceError": 25,
    "InstalledManifestsError": 8,
    "InstallError": 10,
    "UnsafePathError": 10,
    "StateDirectoryError": 19,
    "CommandError": 28,
    "ProgramMissingError": 36,
    "RepositoryError": 37,
    "RefusedCertificateError": 24,
    "ExportError": 7,
    "RefusedFilesError": 38,
    "NextBootError": 39,
    "IncompleteError": 35,
}


def classes() -> dict[str, type[errors.ProjectError]]:
    return {n: c for n, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ProjectError)}


def test_every_error_has_its_documented_exit_code() -> None:
    assert {name: int(c.exit_code) for name, c in classes().items()} == CODES


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__
    assert set(re.findall(r"\w+Error\b", errors.__doc__)) == set(CODES)


@pytest.mark.parametrize("name", CODES)
def test_an_error_carries_its_message_and_hint(name: str) -> None:
    error = classes()[name]("what happened", hint="what to do")
    assert (str(error), error.hint) == ("what happened", "what to do")


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = errors.UsageError("must be a list, not a\n\nb", hint="write\r\nit otherwise")
    assert (str(error), error.hint) == ("must be a list, not a  b", "write it otherwise")
