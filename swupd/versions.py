"""Which versions a server has (swupd client specification, section 5.3).

* A version file counts only with its signature, and both come from one server. Mirrors are equal: the first one that
  has a version file with a valid signature is believed.
* Only the format of a version is not signed; it is shown to people and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from swupd.errors import DownloadError, NotOnServerError, ServerError, SignatureError, UsageError
from swupd.formats import layout
from swupd.formats.manifest import VERSION_LIMIT
from swupd.network.fetch import Fetcher
from swupd.report import Report
from swupd.settings import Settings, check_format
from swupd.trust import Verifier


class Versions:
    """The version files of the settings' version URL and its mirrors.

    Everything here raises ServerError, SignatureError and TlsError; offline always the first.
    """

    def __init__(self, settings: Settings, fetcher: Fetcher, verifier: Verifier, report: Report) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._verifier = verifier
        self._report = report

    def in_format(self) -> list[int]:
        """The versions of our format that the server names, the newest first; there is always one."""
        return self._version_file(layout.latest(self._settings.format), self._fetcher.limits.version_bytes)

    def overall(self) -> int:
        """The newest version of all formats."""
        return self._version_file(layout.latest_overall(), self._fetcher.limits.latest_bytes)[0]

    def format_of(self, version: int) -> str:
        """The format that a version belongs to."""
        places = self._fetcher.mirrors.of_version_file(layout.format_file(version))
        data, url = self._small_file(places, self._fetcher.limits.format_bytes)
        try:
            return check_format(data.decode("latin-1").strip(), url)
        except UsageError as error:
            raise ServerError(f"{url} does not contain a format", hint="check the version URL") from error

    def _version_file(self, name: str, limit: int) -> list[int]:
        """The versions that the first server with a usable file tells."""
        places = self._fetcher.mirrors.of_version_file(name)
        while True:
            data, place = self._small_file(places, limit)
            try:
                return self._verified_versions(data, place, limit)
            except (ServerError, SignatureError) as error:
                places.remove(place)
                if not places:
                    raise
                self._report.warning(f"{error}; the next mirror is asked")

    def _verified_versions(self, data: bytes, url: str, limit: int) -> list[int]:
        if not self._settings.check_latest_signature:
            self._verifier.skip(url)
            return parse_versions(data, url)
        try:
            self._check_version_file(url, data)
        except SignatureError:
            # A publisher replaces the two files one after the other: we may have got one of each.
            data, _ = self._small_file([url], limit)
            self._check_version_file(url, data)
        return parse_versions(data, url)

    def _check_version_file(self, url: str, data: bytes) -> None:
        signature = layout.signature(url)
        try:
            der, _ = self._fetcher.get_from_any([signature], limit=self._fetcher.limits.signature_bytes)
        except NotOnServerError as error:
            raise SignatureError(f"{url} has no signature", hint="the server or its content is broken") from error
        except DownloadError as error:
            raise ServerError(str(error), hint=error.hint) from error
        self._verifier.verify(data, der, what=url, tolerate_expired=True)

    def _small_file(self, places: Sequence[str], limit: int) -> tuple[bytes, str]:
        """A version file, and where it came from."""
        try:
            return self._fetcher.get_from_any(places, limit=limit)
        except NotOnServerError as error:
            raise ServerError(
                str(error), hint=f"check the version URL {self._settings.version_url} and the format"
            ) from error
        except DownloadError as error:
            raise ServerError(str(error), hint=error.hint) from error


def parse_versions(data: bytes, source: str) -> list[int]:
    """The versions of a version file, one a line: the newest, and older ones after it. Raises ServerError.

    Behind the first line whatever is no version is skipped.
    """
    lines = data.decode("latin-1").split("\n")
    versions = [version for line in lines if (version := _version(line)) is not None]
    if _version(lines[0]) is None:
        raise ServerError(f"{source} does not contain a version number", hint="check the version URL")
    return versions


def _version(line: str) -> int | None:
    text = line.strip()
    if text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= VERSION_LIMIT:
        return int(text)
    return None
