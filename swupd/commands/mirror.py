"""`swupd mirror`: where this system updates from, and from where instead (specification section 6.2).

To look needs no root. A new mirror is asked for the newest version before anything is written, unless --offline is
given; several ones are asked in their order when one fails.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from swupd.errors import ExitCode, UsageError, VersionUnknownError
from swupd.report import Report
from swupd.session import Session, exclusive, reading
from swupd.settings import Settings, resolve

HELP = "show or change where the system updates from"
EXAMPLES = """\
  swupd mirror                       show the URLs
  swupd mirror --set https://mirror.example.org/update
  swupd mirror --set URL1 URL2       URL2 is asked when URL1 fails
  swupd mirror --set --versionurl URL1 --contenturl URL2
  swupd mirror --unset               back to the vendor's server"""

URL_OPTIONS = ("url", "versionurl", "contenturl")


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-s",
        "--set",
        nargs="*",
        metavar="URL",
        help="use these mirrors, the first one preferred; without a URL those of --url, --versionurl and --contenturl",
    )
    group.add_argument("-U", "--unset", action="store_true", help="use no mirror any more")


def run(args: Namespace, report: Report) -> int:
    if args.set is None and not args.unset:
        with reading(args, report) as session:
            show(session.settings, session, quiet=args.quiet)
        return ExitCode.OK
    from swupd import mirrorconfig

    version_urls, content_urls = ((), ()) if args.unset else _wanted(args)
    configured = vars(args) | dict.fromkeys(URL_OPTIONS)
    # The file that is replaced may be one that cannot be read.
    new = {"versionurl": "".join(version_urls[:1]), "contenturl": "".join(content_urls[:1])}
    args.settings = replace(resolve(configured | new | {"without_mirrors": args.unset}, os.environ), warnings=())
    with exclusive(args, report, network=False) as session:
        settings = session.settings
        if args.unset:
            mirrorconfig.remove(settings.root)
        else:
            if not settings.offline:
                mirrorconfig.ask(settings, report, version_urls, content_urls)
            mirrorconfig.write(settings.root, version_urls, content_urls)
        if not args.quiet:
            show(resolve(configured, os.environ), session, quiet=False)
    return ExitCode.OK


def show(settings: Settings, session: Session, *, quiet: bool) -> None:
    """What the URLs are; `quiet` is the form for scripts."""
    report = session.report
    if quiet:
        for url in dict.fromkeys((settings.version_url, settings.content_url)):
            report.answer(url)
        return
    try:
        version = str(session.system.installed_version())
    except VersionUnknownError:
        version = "not known"
    if name := session.system.pretty_name():
        report.info(f"Distribution:      {name}")
    report.info(f"Installed version: {version}")
    show_urls(settings, report)


def show_urls(settings: Settings, report: Report) -> None:
    """Both URLs, each followed by its mirrors in the order in which they are asked."""
    for what, urls in (
        ("Version URL:", (settings.version_url, *settings.version_mirrors)),
        ("Content URL:", (settings.content_url, *settings.content_mirrors)),
    ):
        for label, url in zip((what, *[""] * len(urls)), urls, strict=False):
            report.info(f"{label:19}{url or 'not known'}")


def _wanted(args: Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Version URLs and content URLs that were asked for; one of them may be empty, which leaves that file alone."""
    from swupd.mirrorconfig import checked

    if args.set and any(getattr(args, name) for name in URL_OPTIONS):
        raise UsageError("--set has a URL, and another option has one as well", hint="give the URLs only once")

    def urls(option: str) -> tuple[str, ...]:
        for name in (option, "url"):
            if given := getattr(args, name):
                return checked([given], f"--{name}", allow_http=args.allow_insecure_http)
        return checked(args.set, "--set", allow_http=args.allow_insecure_http)

    version_urls, content_urls = urls("versionurl"), urls("contenturl")
    if not version_urls and not content_urls:
        raise UsageError("no URL is given", hint="add one: swupd mirror --set URL")
    return version_urls, content_urls
