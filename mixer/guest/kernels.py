"""The kernel that an image is run with: of the version that the image was made of, made once and kept in the workspace.

cache/kernels/<hash of the MoM>-<recipe of the initrd> is what the type `kernel` makes. The workspace has to be writable
only to make it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixer.build import working
from mixer.config import Config
from mixer.errors import BuildError
from mixer.images import guestinitrd, kernel, output, tree
from mixer.images.tree import ImageTree
from mixer.workspace import MAX_VERSION, Workspace
from swupd.formats import kernels
from swupd.report import Report

RECIPE_DIGITS = 16

_MOM = re.compile(r"[0-9a-f]{64}")
_HINT = "give --kernel DIR; `mixer build image --type kernel --bundles kernel -o DIR` makes one"


def kept(workspace: Workspace, config: Config, facts: Mapping[str, object], report: Report) -> Path:
    """The directory with the kernel for an image of which these facts are told. Raises BuildError."""
    mom, version = facts.get("mom"), facts.get("version")
    if not (isinstance(mom, str) and _MOM.fullmatch(mom) and isinstance(version, int) and 0 < version <= MAX_VERSION):
        raise BuildError("the image does not say of which version it was made", hint=_HINT)
    directory = workspace.kernels / f"{mom}-{guestinitrd.recipe()[:RECIPE_DIGITS]}"
    if output.read_facts(directory).get("mom") == mom:
        return directory
    try:
        with working(workspace):
            found = _load(workspace, config, report, version=version, mom=mom)
            bundles = found.bundles_with(f"/{kernels.BOOT}/{kernels.KERNEL}")
            if not bundles:
                raise BuildError(f"no bundle of version {version} has a kernel", hint=_HINT)
            found = _load(workspace, config, report, version=version, mom=mom, bundles=bundles[:1])
            directory.parent.mkdir(parents=True, exist_ok=True)
            kernel.build(found, directory, report, time=found.timestamp)
    except PermissionError as error:
        raise BuildError(f"{error.filename} cannot be written: no kernel can be kept there", hint=_HINT) from error
    return directory


def _load(
    workspace: Workspace, config: Config, report: Report, *, version: int, mom: str, bundles: Sequence[str] = ()
) -> ImageTree:
    # The hash says more than a signature would: it is this version and no other one.
    found = tree.load(workspace, config, report, version=version, bundles=bundles, signed=False)
    if found.mom_hash != mom:
        raise BuildError(f"the image was made of another version {version} than the published one", hint=_HINT)
    return found
