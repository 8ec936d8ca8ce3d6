from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pytest

from swupd.syntax import Argument, Kind, Option, Value, describe


def described(parser: ArgumentParser, name: str = "update") -> Any:
    contract = "`swupd update`: update (section 5.7).\n\nFirst it\nasks.\n\nThen it does."
    return describe(name, parser, summary="update the system", contract=contract, examples="  swupd update")


def test_the_contract_of_the_module_is_the_description() -> None:
    assert described(ArgumentParser(add_help=False)).description == ("First it asks.", "Then it does.")


def test_options_of_the_subcommand_are_told_from_those_that_all_have() -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--download", "-d", action="store_true", help="only download")
    parser.add_mutually_exclusive_group().add_argument("--enable", action="store_true", help="switch on")
    parser.add_argument_group("output").add_argument("--quiet", action="store_true", help="print less")
    parser.add_argument_group("nothing")
    found = described(parser)
    assert found.own_options == (Option(("-d", "--download"), "only download"), Option(("--enable",), "switch on"))
    assert found.common_groups == (("output", (Option(("--quiet",), "print less"),)),)
    assert found.common_options == (Option(("--quiet",), "print less"),)


@pytest.mark.parametrize(
    ("flags", "metavar", "help_text", "command", "value"),
    [
        (["--path"], "DIR", "", "info", Value("DIR", Kind.DIRECTORY)),
        (["--file"], "PATH", "", "diagnose", Value("PATH", Kind.FILE)),
        (["--deps"], "BUNDLE", "", "bundle-list", Value("BUNDLE", Kind.BUNDLE)),
        (["--bundles"], "A,B", "", "3rd-party repair", Value("A,B", Kind.INSTALLED_BUNDLE, is_list=True)),
        (["--assume"], "yes|no", "", "info", Value("yes|no", words=("yes", "no"))),
        (["--version"], "N", "a number or 'latest'", "update", Value("N", words=("latest",))),
        (["-e", "--repo"], "NAME", "", "3rd-party bundle-remove", Value("NAME", Kind.REPOSITORY)),
        (["--url"], "URL", "", "info", Value("URL")),
    ],
)
def test_what_an_option_takes_follows_from_its_name_in_the_help(
    flags: list[str], metavar: str, help_text: str, command: str, value: Value
) -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument(*flags, metavar=metavar, help=help_text)
    assert described(parser, command).own_options[0].value == value


def test_arguments_are_told_with_how_many_there_may_be() -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("path", metavar="PATH", nargs="?", help="where")
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+", help="what")
    assert described(parser, "bundle-remove").arguments == (
        Argument(Value("PATH", Kind.DIRECTORY), "where", is_optional=True, is_repeated=False),
        Argument(Value("BUNDLE", Kind.INSTALLED_BUNDLE), "what", is_optional=False, is_repeated=True),
    )
