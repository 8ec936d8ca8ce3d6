"""Every error that the client shows to a person, and its exit code.

The tree; a class marked with a number is reported with that exit code (specification section 6.3):

    ProjectError                      1    anything that we say in one line instead of a traceback
    ├── FormatError                  27    bytes from outside are not what the format says
    │   ├── ManifestError            14
    │   ├── ArchiveError             18
    │   ├── DeltaError               27    (the client falls back to the full object and never shows it)
    │   ├── UpdateIndexError         27    (the client does without it and never shows it)
    │   └── SignatureError           21
    ├── UsageError                   15    the command line or a configuration file
    ├── NotRootError                  1
    ├── LockedError                   9
    ├── BundleError
    │   ├── UnknownBundleError        3
    │   ├── RequiredBundleError       2
    │   └── BundleNotInstalledError  13
    ├── ServerError                  16    nothing usable came from the server's version files
    │   ├── DownloadError            17    a content object
    │   │   ├── NotOnServerError     17    ... that the server says it does not have (403, 404)
    │   │   └── OfflineError         17    ... that the cache does not have, while no server may be asked
    │   ├── MomError                  4    the manifest of manifests
    │   └── TlsError                 24
    ├── VersionUnknownError          20
    ├── ClockError                   22
    ├── DiskSpaceError               25
    ├── InstalledManifestsError       8    the manifests of installed bundles
    ├── InstallError                 10    the root could not be changed as planned
    │   └── UnsafePathError          10    a path would have led through a link or out of its directory
    ├── StateDirectoryError          19
    ├── CommandError                 28    a program that we ran failed
    ├── ProgramMissingError          36    a program that a command consists of
    ├── RepositoryError              37    a 3rd-party repository is not there, or its place is taken
    │   ├── RefusedCertificateError  24    nobody trusts its certificate
    │   ├── ExportError               7    its programs cannot be exported
    │   └── RefusedFilesError        38    its files with setuid, setgid or sticky bits are not wanted
    ├── NextBootError                39    this machine cannot be given another version for its next boot
    └── IncompleteError              35    something was left undone, by a repair, verification or live update

An error says what happened, to which path, bundle or URL, in `str(error)`, and what to do about it in `hint`.
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command; the numbers are a stable interface."""

    OK = 0
    NO = 1
    REQUIRED_BUNDLE = 2
    INVALID_BUNDLE = 3
    MOM = 4
    CANNOT_REMOVE_FILE = 5
    CANNOT_RENAME_DIRECTORY = 6
    CANNOT_CREATE_FILE = 7
    MANIFEST_RECURSION = 8
    LOCKED = 9
    INSTALL = 10
    HTTP_LIBRARY = 11
    GLOBALS = 12
    BUNDLE_NOT_INSTALLED = 13
    MANIFEST = 14
    INVALID_OPTION = 15
    SERVER = 16
    DOWNLOAD = 17
    UNTAR = 18
    CANNOT_CREATE_DIRECTORY = 19
    VERSION_UNKNOWN = 20
    SIGNATURE = 21
    CLOCK = 22
    PACK = 23
    TLS = 24
    DISK_SPACE = 25
    NOT_IN_MANIFEST = 26
    UNEXPECTED = 27
    SUBPROCESS = 28
    CANNOT_LIST_DIRECTORY = 29
    HASH = 30
    TIME_UNKNOWN = 31
    CANNOT_WRITE_FILE = 32
    OUT_OF_MEMORY = 34
    INCOMPLETE = 35
    BINARY_MISSING = 36
    THIRD_PARTY_REPOSITORY = 37
    FILE_INVALID = 38
    NEXT_BOOT = 39


class ProjectError(Exception):
    """An error for a person: `str()` is one line, `hint` says what to do, `exit_code` is what the process returns."""

    exit_code: ExitCode = ExitCode.NO

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_one_line(message))
        self.hint = _one_line(hint)


class FormatError(ProjectError):
    exit_code = ExitCode.UNEXPECTED


class ManifestError(FormatError):
    exit_code = ExitCode.MANIFEST


class ArchiveError(FormatError):
    exit_code = ExitCode.UNTAR


class DeltaError(FormatError):
    pass


class UpdateIndexError(FormatError):
    pass


class SignatureError(FormatError):
    exit_code = ExitCode.SIGNATURE


class UsageError(ProjectError):
    exit_code = ExitCode.INVALID_OPTION


class NotRootError(ProjectError):
    pass


class LockedError(ProjectError):
    exit_code = ExitCode.LOCKED


class BundleError(ProjectError):
    exit_code = ExitCode.INVALID_BUNDLE


class UnknownBundleError(BundleError):
    pass


class RequiredBundleError(BundleError):
    exit_code = ExitCode.REQUIRED_BUNDLE


class BundleNotInstalledError(BundleError):
    exit_code = ExitCode.BUNDLE_NOT_INSTALLED


class ServerError(ProjectError):
    exit_code = ExitCode.SERVER


class DownloadError(ServerError):
    exit_code = ExitCode.DOWNLOAD


class NotOnServerError(DownloadError):
    pass


class OfflineError(DownloadError):
    pass


class MomError(ServerError):
    exit_code = ExitCode.MOM


class TlsError(ServerError):
    exit_code = ExitCode.TLS


class VersionUnknownError(ProjectError):
    exit_code = ExitCode.VERSION_UNKNOWN


class ClockError(ProjectError):
    exit_code = ExitCode.CLOCK


class DiskSpaceError(ProjectError):
    exit_code = ExitCode.DISK_SPACE


class InstalledManifestsError(ProjectError):
    exit_code = ExitCode.MANIFEST_RECURSION


class InstallError(ProjectError):
    exit_code = ExitCode.INSTALL


class UnsafePathError(InstallError):
    pass


class StateDirectoryError(ProjectError):
    exit_code = ExitCode.CANNOT_CREATE_DIRECTORY


class CommandError(ProjectError):
    exit_code = ExitCode.SUBPROCESS


class ProgramMissingError(ProjectError):
    exit_code = ExitCode.BINARY_MISSING


class RepositoryError(ProjectError):
    exit_code = ExitCode.THIRD_PARTY_REPOSITORY


class RefusedCertificateError(RepositoryError):
    exit_code = ExitCode.TLS


class ExportError(RepositoryError):
    exit_code = ExitCode.CANNOT_CREATE_FILE


class RefusedFilesError(RepositoryError):
    exit_code = ExitCode.FILE_INVALID


class NextBootError(ProjectError):
    exit_code = ExitCode.NEXT_BOOT


class IncompleteError(ProjectError):
    exit_code = ExitCode.INCOMPLETE


def _one_line(text: str) -> str:
    # What was quoted from outside may have line breaks of its own.
    return " ".join(text.splitlines())


def is_disk_full(error: OSError) -> bool:
    """Whether a call failed for want of space, of the file system or of somebody's quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
