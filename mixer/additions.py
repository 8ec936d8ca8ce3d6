"""Files that join versions that are published already: with signatures and checksums, in a safe order.

Whoever adds packs, deltas or an index collects them here and publishes them at the end. Guarantees:

* What needs a signature gets it beside it; one that is valid for the same content stays.
* The checksums of a version, if it has any, are written anew after the files that they name. They get what an
  interrupted process has added before without coming to that.
* A signed version gets nothing unsigned: BuildError, before anything is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mixer import checksums
from mixer.errors import BuildError
from mixer.places import Addition
from mixer.release import Signer
from mixer.store import PublishedTree
from swupd.formats import layout


class Additions:
    """Files for versions of one tree, in the order in which they are to appear."""

    def __init__(self, tree: PublishedTree, signer: Signer | None) -> None:
        self._tree = tree
        self._signer = signer
        self._files: dict[int, dict[str, Path | bytes]] = {}

    def put(self, file: str, content: Path | bytes) -> None:
        """Add a file, named as in the tree ("20/pack-editors-from-10.tar"). A path has to stay until `publish`."""
        version, _, name = file.partition("/")
        self._files.setdefault(int(version), {})[name] = content

    def put_signed(self, file: str, data: bytes) -> None:
        """The same with a signature, if the mix is signed."""
        self.put(file, data)
        if self._signer is not None:
            signature = layout.signature(file)
            self.put(signature, self._signer.sign_again(data, self._tree.former(signature)))

    def publish(self) -> None:
        """Add everything, version by version in the order of their first files. Raises BuildError."""
        for version in self._files:
            if self._signer is None and self._tree.has(layout.manifest_signature(version)):
                raise BuildError(
                    f"version {version} is signed, so what is added to it has to be signed as well",
                    hint="leave --no-signing out",
                )
        for version, files in list(self._files.items()):
            name = layout.checksums(version)
            former = self._tree.former(name)
            if former is not None:
                sums = checksums.parse(former, f"{self._tree.shown}/{name}")
                sums |= self._unlisted(version, sums)
                sums |= {file: checksums.of(content) for file, content in files.items()}
                self.put_signed(name, checksums.serialise(sums))
            additions: list[Addition] = list(files.items())
            self._tree.add(version, additions)

    def _unlisted(self, version: int, listed: Mapping[str, str]) -> dict[str, str]:
        """Checksums of files that are published and that the list does not have."""
        found = {}
        for file in self._tree.names(version):
            _, _, name = file.partition("/")
            if name not in listed and not checksums.is_own(name):
                with self._tree.open(file) as source:
                    found[name] = checksums.of_stream(source)
        return found
