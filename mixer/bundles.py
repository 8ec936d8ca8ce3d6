"""Where definitions are found, and the closed set of bundles that is built (mixer specification, sections 5.2 and 5.3).

A name is looked up in local-bundles, then in local-packages (a package name that is a bundle by itself), then in the
directories that builder.yaml names, in order; the first wins. In a directory, NAME is the text form and NAME.yaml the
YAML form of a definition, never both; hidden files, README files and editors' copies (`NAME~`) are no definitions.

`BundleSet.load` closes the mix over include() and also-add(). Cycles are accepted, an unknown name is a DefinitionError
that says who asked for it where, and os-core and the update bundle have to be in the set. The order of a set puts every
bundle after those it includes, unless that closes a cycle, and depends on nothing but the definitions' content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mixer.config import Config
from mixer.definition import YAML_SUFFIX, BundleDefinition, parse_text_form, read, strict_problems
from mixer.errors import DefinitionError, UnknownPackageError
from mixer.located import Located, Origin, did_you_mean, read_text
from mixer.workspace import Workspace
from swupd.formats.layout import OS_CORE
from swupd.formats.manifest import is_bundle_name

MAX_BUNDLES = 50_000
"""Bundles in one set."""


class Definitions:
    """All definitions that a workspace can use. Files are read when they are asked for, each once."""

    def __init__(self, workspace: Workspace, directories: Sequence[Path]) -> None:
        self.workspace = workspace
        self._directories = tuple(directories)
        self._found: dict[str, BundleDefinition | None] = {}

    def find(self, name: str) -> BundleDefinition | None:
        """The definition that counts, None if there is none. Raises DefinitionError if it is wrong."""
        if name not in self._found:
            self._found[name] = self.find_local(name) or self.find_upstream(name)
        return self._found[name]

    def find_local(self, name: str) -> BundleDefinition | None:
        """The definition in local-bundles or local-packages."""
        return self._read_from(self.workspace.local_bundles, name) or self._pundles.get(name)

    def find_upstream(self, name: str) -> BundleDefinition | None:
        """The definition in the directories that builder.yaml names."""
        for directory in self._directories:
            if definition := self._read_from(directory, name):
                return definition
        return None

    def local_names(self) -> list[str]:
        return sorted({*_names_in(self.workspace.local_bundles), *self._pundles})

    def upstream_names(self) -> list[str]:
        """Raises DefinitionError if a directory is missing."""
        names: set[str] = set()
        for directory in self._directories:
            self._require(directory)
            names.update(_names_in(directory))
        return sorted(names)

    def names(self) -> list[str]:
        return sorted({*self.local_names(), *self.upstream_names()})

    def unknown(self, name: str, place: str | Path, line: int, message: str = "") -> DefinitionError:
        """The error for a name without a definition, which stands at a place."""
        hint = did_you_mean(name, self.names()) or "`mixer bundle list local` and `… upstream` show those that exist"
        return DefinitionError(place, line, message or f"unknown bundle {name}", hint=hint)

    def problems(self, name: str, place: str, *, strict: bool) -> list[DefinitionError]:
        """What is wrong with the definition of `name`, which stands in `place` (mixer specification, section 5.4)."""
        try:
            definition = self.find(name)
            if definition is None:
                return [self.unknown(name, place, 0)]
            problems = strict_problems(definition) if strict else []
            problems += [
                self.unknown_in(definition, item, verb)
                for verb, item in definition.wanted()
                if self.find(item.name) is None
            ]
            content_trees(definition, self.workspace)
        except DefinitionError as error:
            return [error]
        return problems

    def unknown_in(self, asker: BundleDefinition, item: Located, verb: str) -> DefinitionError:
        """The error for a name without a definition, which another definition names."""
        message = f"the bundle {asker.name} {verb} the unknown bundle {item.name}"
        return self.unknown(item.name, asker.shown, item.line, message)

    @cached_property
    def _pundles(self) -> dict[str, BundleDefinition]:
        path = self.workspace.local_packages
        shown = self.workspace.shown(path)
        try:
            text = read_text(path, Origin(shown, DefinitionError))
        except FileNotFoundError:
            return {}
        listed = parse_text_form(text, path.name, path, shown)
        for other in (*listed.includes, *listed.also_adds, *listed.contents, *listed.un_exports):
            raise listed.error(other.line, "only package names can stand here", hint="one a line")
        for package in listed.packages:
            if not is_bundle_name(package.name):
                raise listed.error(package.line, f"{package.name} cannot be the name of a bundle")
        return {
            package.name: replace(listed, name=package.name, headers={}, packages=(package,), is_pundle=True)
            for package in listed.packages
        }

    def _read_from(self, directory: Path, name: str) -> BundleDefinition | None:
        if directory != self.workspace.local_bundles:
            self._require(directory)
        if not is_definition_name(name):
            return None
        text, structured = directory / name, directory / f"{name}{YAML_SUFFIX}"
        if structured.is_file():
            if text.is_file():
                raise DefinitionError(
                    self.workspace.shown(structured),
                    0,
                    f"the bundle {name} is also defined in {self.workspace.shown(text)}",
                    hint="remove one of the two files",
                )
            return self._read(structured)
        return self._read(text) if text.is_file() else None

    def _read(self, path: Path) -> BundleDefinition:
        try:
            return read(path, self.workspace.shown(path))
        except OSError as error:
            raise DefinitionError(self.workspace.shown(path), 0, f"cannot be read: {error.strerror}") from error

    def _require(self, directory: Path) -> None:
        if not directory.is_dir():
            shown = self.workspace.shown(directory)
            hint = "correct `bundles` in builder.yaml"
            raise DefinitionError(shown, 0, "there is no such directory of definitions", hint=hint)


@dataclass(frozen=True)
class BundleSet:
    """A closed set of definitions, in build order."""

    workspace: Workspace
    definitions: Mapping[str, BundleDefinition]
    requested: frozenset[str]
    """Those that the mix names itself; the others came with them."""

    @classmethod
    def load(cls, workspace: Workspace, config: Config) -> BundleSet:
        """The set of the mix, with everything checked that can be checked without a source. Raises DefinitionError."""
        definitions = Definitions(workspace, config.bundle_directories)
        place = workspace.shown(workspace.bundles_file)
        bundles = cls.close(definitions, workspace.mix_bundles(), place)
        required = {config.update_bundle: "it tells clients where updates are", OS_CORE: "every system has it"}
        for name, why in required.items():
            if name not in bundles:
                hint = f"add it with `mixer bundle add {name}`"
                if name != OS_CORE:
                    hint += ", or name another one as update_bundle in builder.yaml"
                raise DefinitionError(place, 0, f"the bundle {name} must be in the mix: {why}", hint=hint)
        for name in bundles:
            bundles.content_trees(name)
        return bundles

    @classmethod
    def close(cls, definitions: Definitions, names: Iterable[Located], place: str) -> BundleSet:
        """The closure of `names`, which stand in the file `place`. Raises DefinitionError."""
        found: dict[str, BundleDefinition] = {}
        queue: list[tuple[Located, BundleDefinition | None, str]] = [(name, None, "") for name in names]
        requested = frozenset(name.name for name, _, _ in queue)
        while queue:
            name, asker, verb = queue.pop()
            if name.name in found:
                continue
            definition = definitions.find(name.name)
            if definition is None:
                if asker is None:
                    raise definitions.unknown(name.name, place, name.line)
                raise definitions.unknown_in(asker, name, verb)
            found[name.name] = definition
            if len(found) > MAX_BUNDLES:
                raise DefinitionError(place, 0, f"the mix has more than {MAX_BUNDLES} bundles")
            queue += [(item, definition, verb) for verb, item in definition.wanted()]
        order = _depth_first(_roots_first(found), lambda name: [item.name for item in found[name].includes])
        return cls(definitions.workspace, {name: found[name] for name in order}, requested)

    def __iter__(self) -> Iterator[str]:
        return iter(self.definitions)

    def __len__(self) -> int:
        return len(self.definitions)

    def __contains__(self, name: object) -> bool:
        return name in self.definitions

    def __getitem__(self, name: str) -> BundleDefinition:
        return self.definitions[name]

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages that any definition names, sorted."""
        return tuple(sorted({package.name for bundle in self.definitions.values() for package in bundle.packages}))

    def includes(self, name: str) -> frozenset[str]:
        """All bundles that `name` needs, directly or not; never itself."""
        reached = _depth_first([name], lambda bundle: [item.name for item in self.definitions[bundle].includes])
        return frozenset(reached) - {name}

    def content_trees(self, name: str) -> tuple[Path, ...]:
        """The directories of content() of a bundle. Raises DefinitionError if one does not exist."""
        return content_trees(self.definitions[name], self.workspace)

    def unknown_packages(self, error: UnknownPackageError) -> DefinitionError:
        """The same error with the places where the unknown packages are named."""
        unknown = set(error.packages)
        places = [
            (definition, package)
            for definition in self.definitions.values()
            for package in definition.packages
            if package.name in unknown
        ]
        if not places:
            return DefinitionError(self.workspace.shown(self.workspace.bundles_file), 0, str(error), hint=error.hint)
        first, package = places[0]
        message = f"unknown package {package.name}"
        if others := [f"{other.name} ({where.shown}: line {other.line})" for where, other in places[1:]]:
            message += f"; also {', '.join(others)}"
        return first.error(package.line, message, hint=error.hint)


def content_trees(definition: BundleDefinition, workspace: Workspace) -> tuple[Path, ...]:
    """The directories of content(): relative to the workspace or, if not there, to the definition's directory.

    Raises DefinitionError if one does not exist.
    """
    trees = []
    for content in definition.contents:
        candidates = (workspace.path / content.name, definition.path.parent / content.name)
        tree = next((path for path in candidates if path.is_dir()), None)
        if tree is None:
            hint = "it is looked for in the workspace and beside the definition"
            raise definition.error(content.line, f"content({content.name}) is not a directory", hint=hint)
        trees.append(tree)
    return tuple(trees)


def _roots_first(names: Iterable[str]) -> list[str]:
    """Sorted, with os-core in front: everything stands on it, said or not."""
    return sorted(names, key=lambda name: (name != OS_CORE, name))


def _depth_first(starts: Iterable[str], below: Callable[[str], list[str]]) -> list[str]:
    """All that is reached from `starts`, each after what is below it; an edge that closes a cycle is ignored.

    Not recursive: a chain of includes may be longer than Python's stack.
    """
    order: list[str] = []
    seen: set[str] = set()
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(below(start)))]
        while stack:
            name, rest = stack[-1]
            for child in rest:
                if child not in seen:
                    seen.add(child)
                    stack.append((child, iter(below(child))))
                    break
            else:
                stack.pop()
                order.append(name)
    return order


def _names_in(directory: Path) -> set[str]:
    if not directory.is_dir():
        return set()
    names = {entry.name.removesuffix(YAML_SUFFIX) for entry in directory.iterdir() if entry.is_file()}
    return {name for name in names if is_definition_name(name)}


def is_definition_name(name: str) -> bool:
    """May a definition's file be called so (without .yaml)?"""
    return is_bundle_name(name) and not name.startswith("README") and not name.endswith(YAML_SUFFIX)
