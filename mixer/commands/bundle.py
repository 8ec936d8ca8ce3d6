"""`mixer bundle add|remove|list|validate|create`: the bundles of the mix and their definitions."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from mixer.bundles import BundleSet, Definitions, is_definition_name
from mixer.config import Config, TreeSource, load
from mixer.definition import YAML_SUFFIX, BundleDefinition, serialise_text, serialise_yaml
from mixer.errors import DefinitionError, MixError
from mixer.listing import Row, listing, tree
from mixer.located import Located, did_you_mean
from mixer.table import table
from mixer.workspace import Workspace
from swupd.formats.layout import OS_CORE
from swupd.fs import replace_file
from swupd.report import Report, show_error

NAME = "bundle"
HELP = "add, remove, list, check and write bundles"
DESCRIPTION = """\
The bundles of the mix (the file mixbundles) and their definitions. A definition is
looked up in local-bundles/, then in local-packages, then in the directories that
builder.yaml names under `bundles`; the first one wins."""
EXAMPLES = """\
examples:
  mixer bundle create web-server
  mixer bundle validate web-server
  mixer bundle add web-server
  mixer bundle list --tree"""

_COMMAND_LINE = "the command line"

_TEXT_HELP = """\
# A package is one line with its name. Besides packages:
#   include(NAME)     a bundle that this one needs
#   also-add(NAME)    a bundle that is installed along with this one
#   content(DIR)      a directory tree to add to the system
#   un-export(PATH)   a program that is not offered on the PATH
"""

_YAML_HELP = """\
# packages: [NAME, ...]     the packages of this bundle
# includes: [NAME, ...]     bundles that this one needs
# also_add: [NAME, ...]     bundles that are installed along with this one
# content: [DIR, ...]       directory trees to add to the system
# un_export: [PATH, ...]    programs that are not offered on the PATH
packages: []
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="commands", dest="action", metavar="COMMAND", required=True)

    add = actions.add_parser(
        "add",
        help="add bundles to the mix",
        description="Add bundles to the mix. What they include comes along by itself.",
        epilog="example:\n  mixer bundle add web-server editors",
    )
    add.add_argument("names", nargs="+", metavar="NAME")
    add.set_defaults(action=_add)

    remove = actions.add_parser(
        "remove",
        help="remove bundles from the mix",
        description="Remove bundles from the mix. Definitions stay where they are.",
        epilog="example:\n  mixer bundle remove editors",
    )
    remove.add_argument("names", nargs="+", metavar="NAME")
    remove.set_defaults(action=_remove)

    show = actions.add_parser(
        "list",
        help="list bundles",
        description="List the bundles of the mix with all that they bring along, or the definitions there are.",
        epilog="examples:\n  mixer bundle list\n  mixer bundle list upstream --json\n  mixer bundle list --tree",
    )
    show.add_argument("which", nargs="?", choices=("mix", "local", "upstream"), default="mix", help="default: mix")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--tree", action="store_true", help="show what includes what")
    form.add_argument("--json", action="store_true", help="print a JSON list of objects")
    show.set_defaults(action=_list)

    validate = actions.add_parser(
        "validate",
        help="check definitions",
        description="Check that definitions can be read, and that what they include and ship exists.",
        epilog="examples:\n  mixer bundle validate web-server\n  mixer bundle validate --all --strict",
    )
    validate.add_argument("names", nargs="*", metavar="NAME")
    validate.add_argument("--all", action="store_true", help="all definitions there are")
    validate.add_argument("--strict", action="store_true", help="headers have to be complete as well")
    validate.set_defaults(action=_validate)

    create = actions.add_parser(
        "create",
        help="write definitions to edit",
        description="Write definitions to local-bundles/: copies of the upstream ones of these names, else templates.",
        epilog="examples:\n  mixer bundle create web-server\n  mixer bundle create --yaml web-server",
    )
    create.add_argument("names", nargs="+", metavar="NAME")
    create.add_argument("--yaml", action="store_true", help="in YAML instead of the text form")
    create.set_defaults(action=_create)


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    config = load(workspace, os.environ)
    if isinstance(config.source, TreeSource):
        raise MixError(
            "this mix is made of prepared roots, not of bundle definitions",
            hint=f"its bundles are the sections of {workspace.shown(config.source.path)}/<version>/groups.ini",
        )
    status: int = args.action(workspace, config, args, report)
    return status


# -- add, remove -------------------------------------------------------------------------------------------------------


def _add(workspace: Workspace, config: Config, args: argparse.Namespace, report: Report) -> int:
    definitions = Definitions(workspace, config.bundle_directories)
    _require_known([name for name in args.names if definitions.find(name) is None], definitions.names())
    with workspace.lock():
        mix = {bundle.name for bundle in workspace.mix_bundles()}
        new = [name for name in dict.fromkeys(args.names) if name not in mix]
        added = _close(definitions, new)
        for name in added:
            added.content_trees(name)
        if new:
            workspace.set_mix_bundles(mix | set(new))
    for name in dict.fromkeys(args.names):
        if name not in new:
            report.info(f"{name} is in the mix already.")
            continue
        along = sorted(set(_close(definitions, [name])) - {name})
        report.info(f"{name} is added to the mix" + (f", along with {', '.join(along)}." if along else "."))
    return 0


def _remove(workspace: Workspace, config: Config, args: argparse.Namespace, report: Report) -> int:
    definitions = Definitions(workspace, config.bundle_directories)
    with workspace.lock():
        mix = {bundle.name for bundle in workspace.mix_bundles()}
        if unknown := [name for name in args.names if name not in mix]:
            hint = did_you_mean(unknown[0], mix) or "`mixer bundle list` shows what is"
            raise MixError(f"not in the list of the mix: {', '.join(unknown)}", hint=hint)
        kept = mix - set(args.names)
        try:
            rest = _close(definitions, kept)
        except DefinitionError as error:
            # A mix with a broken definition can be mended by taking bundles out of it.
            report.warning(str(error))
            rest = None
        if rest is not None:
            for required in (OS_CORE, config.update_bundle):
                if required in args.names and required not in rest:
                    raise MixError(f"every mix needs the bundle {required}", hint="nothing was removed")
        workspace.set_mix_bundles(kept)
    for name in dict.fromkeys(args.names):
        report.info(f"{name} is removed from the mix.")
        if rest is not None and name in rest:
            report.warning(f"{name} is still built: it comes along with {', '.join(_who_wants(rest, name))}")
    return 0


def _who_wants(bundles: BundleSet, name: str) -> list[str]:
    return sorted(
        asker.name
        for asker in bundles.definitions.values()
        if name in {item.name for item in (*asker.includes, *asker.also_adds)}
    )


def _close(definitions: Definitions, names: Iterable[str]) -> BundleSet:
    return BundleSet.close(definitions, [Located(name, 0) for name in sorted(names)], _COMMAND_LINE)


def _require_known(unknown: Sequence[str], known: Sequence[str]) -> None:
    if unknown:
        near = [hint for name in unknown if (hint := did_you_mean(name, known))]
        raise MixError(
            f"unknown bundle{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}; nothing was changed",
            hint=" ".join(near) or "`mixer bundle create NAME` writes a definition to edit",
        )


# -- list --------------------------------------------------------------------------------------------------------------


def _list(workspace: Workspace, config: Config, args: argparse.Namespace, report: Report) -> int:
    definitions = Definitions(workspace, config.bundle_directories)
    mix = BundleSet.close(definitions, workspace.mix_bundles(), workspace.shown(workspace.bundles_file))
    if args.tree:
        names = {"mix": sorted(mix.requested), "local": definitions.local_names()}.get(args.which)
        for line in tree(definitions, definitions.upstream_names() if names is None else names):
            report.answer(line)
        return 0
    rows = listing(definitions, mix, args.which)
    if args.json:
        report.answer(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    elif rows:
        heading = ("bundle", "definition", "in the mix", "", "status", "description")
        report.answer(table([heading, *(_cells(row) for row in rows)]))
    else:
        report.info("There are none.")
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    return (row.name, f"{row.origin} {row.kind}", row.in_mix, row.hidden, row.status, row.description)


# -- validate, create --------------------------------------------------------------------------------------------------


def _validate(workspace: Workspace, config: Config, args: argparse.Namespace, report: Report) -> int:
    if bool(args.names) == args.all:
        raise MixError("say which definitions to check", hint="either their names, or --all")
    definitions = Definitions(workspace, config.bundle_directories)
    names = definitions.names() if args.all else list(dict.fromkeys(args.names))
    problems = 0
    for name in names:
        for problem in definitions.problems(name, _COMMAND_LINE, strict=args.strict):
            show_error(report, problem)
            problems += 1
    if problems:
        return 1
    report.info(f"{len(names)} definition{'s are' if len(names) != 1 else ' is'} valid.")
    return 0


def _create(workspace: Workspace, config: Config, args: argparse.Namespace, report: Report) -> int:
    definitions = Definitions(workspace, config.bundle_directories)
    names = list(dict.fromkeys(args.names))
    for name in names:
        if not is_definition_name(name):
            raise MixError(f"{name} is no name for a bundle", hint="letters, digits, and any of - _ + .")
        existing = definitions.find_local(name)
        if existing is not None and not existing.is_pundle:
            raise MixError(f"{existing.shown} exists", hint="edit that file; nothing was changed")
    with workspace.lock():
        workspace.local_bundles.mkdir(exist_ok=True)
        for name in names:
            path = workspace.local_bundles / (name + (YAML_SUFFIX if args.yaml else ""))
            original = definitions.find_upstream(name)
            replace_file(path, _definition_text(name, original, as_yaml=args.yaml).encode())
            if original is not None and original.contents:
                report.warning(f"the directories of content() beside {original.shown} are not copied")
            what = f"a copy of {original.shown}" if original else "a template to edit"
            report.info(f"{workspace.shown(path)} is {what}; add it to the mix with `mixer bundle add {name}`.")
    return 0


def _definition_text(name: str, original: BundleDefinition | None, *, as_yaml: bool) -> str:
    if original is not None:
        is_yaml = original.path.name.endswith(YAML_SUFFIX)
        if is_yaml == as_yaml:
            return original.path.read_text(encoding="utf-8")
        return serialise_yaml(original) if as_yaml else serialise_text(original)
    headers = {"title": Located(name, 0), "status": Located("Active", 0)}
    empty = BundleDefinition(name, path=Path(name), shown=name, headers=headers)
    return serialise_yaml(empty) + _YAML_HELP if as_yaml else serialise_text(empty) + _TEXT_HELP
