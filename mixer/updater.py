"""What the builder itself puts into a root: the updater, for the update bundle, and the base of a stateless system.

* Files are those of mixer/osfiles, a tree for each of the two, written as mixer.rootfiles says.
* swupd comes from this installation and the libraries that it needs from this environment, cut down to what is loaded:
  23 MB with what Python has compiled, and 12 of them are cryptography's OpenSSL. The launcher /usr/bin/swupd looks
  nowhere else before. TLS uses the certificates of the system. Compiled parts must fit the Python of the root, so both
  have to be of one minor version.
* What was copied is run before it ships: it writes its manual pages and completion scripts, and imports every library.

The same environment gives the same bytes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mixer import elf
from mixer.errors import BuildError
from mixer.rootfiles import DIRECTORY_MODE, UNITS, RootFiles
from mixer.sources.dpkg import Canonical
from swupd import process
from swupd.errors import CommandError
from swupd.report import Report

LIBRARIES = ("asn1crypto", "cryptography", "requests", "rich", "urllib3", "zstandard")
"""What swupd imports, each by the name that it is installed by; what these need is found in their metadata."""
NOT_NEEDED = {
    "certifi": "the certificates of the system are used; our own module of this name says where they are",
    "markdown-it-py": "rich needs it for Markdown only",
    "pycparser": "cffi needs it to read C only",
    "pygments": "rich needs it for source code only",
    "typing-extensions": "for a Python older than ours",
}
"""Libraries that are left out with all that only they need, and why."""
NOT_LOADED = {
    "*/__pycache__/*": "made for another place",
    "*/tests/*": "tests",
    "*.pyi": "for type checkers",
    "*.typed": "for type checkers",
    "*.h": "for compilers",
    "*.pth": "for the beginning of every Python",
    "cffi/*": "cryptography loads _cffi_backend only",
    "charset_normalizer/cli/*": "a program",
    "urllib3/contrib/emscripten/*": "for web browsers",
    "zstandard/*_cffi*": "a second implementation, for PyPy",
}
"""Files of libraries that are left out, and why."""
KEPT_METADATA = ("METADATA", "LICEN[CS]E*", "COPYING*", "NOTICE*", "licenses/*")
PYTHON = "/usr/lib/swupd/python"
"""Where swupd and its libraries are."""
SWITCHED_ON_LATER = frozenset({"swupd-update.timer"})
"""`swupd autoupdate --enable` does it."""
OF_THE_ROOT = ("systemd-networkd.service", "systemd-resolved.service")
"""Units of packages that are enabled if the root has them."""
LINKS = {
    "/usr/sbin/init": "../lib/swupd/init",
    f"{UNITS}/default.target": "multi-user.target",
}
MANUAL = "/usr/share/man/man1"
COMPLETIONS = {
    "swupd.bash": "/usr/share/bash-completion/completions/swupd",
    "_swupd": "/usr/share/zsh/vendor-completions/_swupd",
}

_RUN = """\
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[3:]:
    importlib.import_module(name)
from swupd.manual import main
sys.exit(main(sys.argv[2:3]))
"""


def ship(root: Path, report: Report) -> list[str]:
    """Put the updater into a root; the names of all files and links that were written, sorted.

    Raises BuildError if it would not run there, OSError if it cannot be written.
    """
    report.step("ship-updater", "Shipping the updater")
    _require_same_python(root)
    written = RootFiles(root)
    written.tree("os-core-update", not_enabled=SWITCHED_ON_LATER)
    for name, data in (*_swupd(), *_libraries()):
        written.file(f"{PYTHON}/{name}", data)
    _compile(root, written)
    for name, data in _manual(root):
        written.file(name, data)
    return sorted(written.names)


def ship_base(root: Path) -> list[str]:
    """Put the base of a stateless system into a root; the names of all that was written, sorted. Raises BuildError."""
    written = RootFiles(root)
    written.tree("os-core")
    for name, target in LINKS.items():
        written.link(name, target)
    for unit in OF_THE_ROOT:
        written.enable(unit)
    return sorted(written.names)


# -- Python --------------------------------------------------------------------------------------------------------


def _require_same_python(root: Path) -> None:
    """Raise BuildError if compiled code of this environment cannot be loaded in the root."""
    ours = f"python3.{sys.version_info.minor}"
    program = Canonical(str(root)).target("/usr/bin/python3")
    if program is None or not Path(f"{root}/usr/lib/{ours}/http/client.py").is_file():
        theirs = program.rpartition("/")[2] if program else ""
        if theirs.startswith("python3.") and theirs != ours:
            raise BuildError(
                f"the root has {theirs}, but mixer runs with {ours}: the updater would not run there",
                hint=f"run mixer with {theirs}: make setup PYTHON={theirs}",
            )
        raise BuildError(
            "the updater needs Python with its whole standard library, and the root does not have it",
            hint="name the package python3 in the update bundle",
        )
    try:
        with open(f"{root}{program}", "rb") as stream, open(sys.executable, "rb") as own:
            machines = {elf.read(stream.read()).machine, elf.read(own.read()).machine}
    except ValueError as error:
        raise BuildError(f"{program} of the root is {error}") from error
    if len(machines) > 1:
        raise BuildError(
            "the root is for another kind of machine than this one: the updater would not run there",
            hint="build on a machine of the kind that the root is for",
        )


def _swupd() -> Iterator[tuple[str, bytes]]:
    """The modules of swupd, wherever they are installed: names below PYTHON, and contents."""
    spec = find_spec("swupd")
    for place in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(place).rglob("*.py")):
            yield f"swupd/{path.relative_to(place)}", path.read_bytes()


def _libraries() -> Iterator[tuple[str, bytes]]:
    """The files of all libraries: names below PYTHON, and contents."""
    for library in sorted(_needed()):
        distribution = _distribution(library)
        names = [path for path in distribution.files or () if _is_loaded(str(path))]
        if not any(name.suffix in (".py", ".so") for name in names):
            raise BuildError(
                f"nobody knows the files of the Python library {library}",
                hint="run mixer from a virtual environment: make setup",
            )
        for name in names:
            data = Path(str(distribution.locate_file(name))).read_bytes()
            # Debugging symbols are nine tenths of some.
            yield str(name), elf.without_sections(data) if data.startswith(b"\x7fELF") else data


def _needed() -> set[str]:
    """The names of all libraries that swupd needs."""
    needed: set[str] = set()
    waiting = list(LIBRARIES)
    while waiting:
        library = waiting.pop()
        if library in needed or library in NOT_NEEDED:
            continue
        needed.add(library)
        for requirement in _distribution(library).requires or ():
            what, _, condition = requirement.partition(";")
            if "extra" not in condition:
                waiting.append(_distribution_name(what))
    return needed


def _distribution_name(requirement: str) -> str:
    """The name at the beginning of a requirement, in its normal form: "charset_normalizer<4" -> charset-normalizer."""
    end = next((at for at, sign in enumerate(requirement) if not (sign.isalnum() or sign in "-_.")), len(requirement))
    return requirement[:end].replace("_", "-").replace(".", "-").lower()


def _distribution(library: str) -> metadata.Distribution:
    try:
        return metadata.distribution(library)
    except metadata.PackageNotFoundError as error:
        raise BuildError(
            f"the Python library {library}, which the updater needs, is not installed here",
            hint="make the environment anew: make setup",
        ) from error


def _is_loaded(name: str) -> bool:
    """Whether a file of a library is wanted."""
    if name.startswith(("/", "../")) or any(fnmatchcase(name, pattern) for pattern in NOT_LOADED):
        return False
    directory, _, rest = name.partition("/")
    return not directory.endswith(".dist-info") or any(fnmatchcase(rest, pattern) for pattern in KEPT_METADATA)


def _compile(root: Path, written: RootFiles) -> None:
    """Let Python compile all that was copied. A process of its own and a fixed seed make the result reproducible."""
    python = f"{root}{PYTHON}"
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    environment = {"PYTHONHASHSEED": "0"}
    process.run([sys.executable, "-S", "-s", "-P", "-m", "compileall", *options, python], env=environment)
    for path in Path(python).rglob("__pycache__"):
        os.chmod(path, DIRECTORY_MODE)
        written.names.update(f"{PYTHON}/{compiled.relative_to(python)}" for compiled in path.iterdir())


def _manual(root: Path) -> Iterator[tuple[str, bytes]]:
    """Manual pages and completion scripts as swupd in the root makes them: names in the root, and contents."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "man").mkdir()
        (directory / "completion").mkdir()
        alone = ["-I", "-S", "-B"]
        try:
            process.run([sys.executable, *alone, "-c", _RUN, f"{root}{PYTHON}", directory, *LIBRARIES])
        except CommandError as error:
            raise BuildError(
                f"the updater does not run with the libraries that were copied: {error}",
                hint="make the environment anew: make setup",
            ) from error
        for page in sorted((directory / "man").iterdir()):
            yield f"{MANUAL}/{page.name}", page.read_bytes()
        for script, place in COMPLETIONS.items():
            yield place, (directory / "completion" / script).read_bytes()
