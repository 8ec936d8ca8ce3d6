"""`swupd reset`: back to the factory state: all of /etc, all of /var, or single paths of them.

On a running system --etc and --var are carried out by the next boot, before anything is started; until then
`swupd reset --cancel` withdraws them. A root that is not running (--path) is emptied at once, because it is filled when
it starts. A PATH in /etc is put back like `swupd etc revert` does it. A PATH below /var is removed at once and, if the
system is running, made again by systemd-tmpfiles.

/home, /root, /srv and /opt are never touched. What was set up in /etc goes: users, passwords, the network, the name of
the machine and its keys. With /var go logs, databases, caches, /usr/local and the state of swupd itself.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from swupd.commands.etc import told
from swupd.errors import ExitCode, UsageError
from swupd.faces.prompt import ask
from swupd.nextboot import etcoverlay, reset
from swupd.nextboot.etcrevert import relative, revert, settle_queue
from swupd.report import Report
from swupd.session import Session, exclusive

HELP = "go back to the factory state of /etc or /var"
EXAMPLES = """\
  swupd reset --etc --var                    everything but /home, with the next boot
  swupd reset --cancel                       rather not
  swupd reset /var/lib/NetworkManager /etc/hosts"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="FILE", help="files and directories in /etc or below /var")
    parser.add_argument("--etc", action="store_true", help="all of /etc")
    parser.add_argument("--var", action="store_true", help="all of /var")
    parser.add_argument("--cancel", action="store_true", help="withdraw what the next boot would reset")


def run(args: Namespace, report: Report) -> int:
    parts = [part for part in reset.PARTS if getattr(args, part)]
    if args.cancel and (parts or args.paths):
        raise UsageError("--cancel stands alone", hint="withdraw first, then say anew what to reset")
    if not (args.cancel or parts or args.paths):
        raise UsageError("nothing was chosen", hint="give --etc, --var, or paths in them")
    with exclusive(args, report, network=False) as session:
        root = session.settings.root
        if args.cancel:
            withdrawn = reset.cancel(root)
            report.info(f"Withdrawn: {_named(withdrawn)}" if withdrawn else "The next boot would reset nothing")
            return ExitCode.OK
        layers = etcoverlay.find_layers(root)
        if parts and session.system.is_host and not layers.is_overlay:
            raise UsageError(
                f"{_named(parts)} cannot be reset while this system uses it, and no initrd of ours will do it",
                hint="reset it from outside, with --path",
            )
        in_etc = [relative(path) for path in args.paths if _is_in_etc(path)]
        state_dirs = (session.settings.data_dir, session.settings.cache_dir)
        in_var = [reset.var_path(path, state_dirs, root) for path in args.paths if not _is_in_etc(path)]
        if not _confirmed(session, parts, in_var, at_once=not layers.is_overlay):
            return ExitCode.NO
        if in_etc:
            settle_queue(layers, report)
            told(report, revert(layers, in_etc, report))
        for path in in_var:
            reset.reset_var(root, path, report, is_host=session.system.is_host)
        _reset_parts(session, parts, at_once=not layers.is_overlay)
    return ExitCode.OK


def _confirmed(session: Session, parts: Sequence[str], in_var: Sequence[str], *, at_once: bool) -> bool:
    """Whether somebody wants to lose all this."""
    report, when = session.report, "now" if at_once else "at the next boot"
    for part in parts:
        report.info(f"All that was changed in /{part} of {session.settings.root} will be removed {when}")
    for path in in_var:
        report.info(f"{path} will be removed now, with all that is in it")
    if not (parts or in_var) or ask(report, "Go on?", assume=session.settings.assume):
        return True
    report.info("Nothing was changed; --yes goes on without asking")
    return False


def _reset_parts(session: Session, parts: Sequence[str], *, at_once: bool) -> None:
    root, report = session.settings.root, session.report
    if at_once:
        reset.empty(root, parts)
        for part in parts:
            report.info(f"/{part} of {root} is empty; its next start fills it")
    elif parts:
        everything = reset.request(root, parts)
        report.info(f"The next boot resets {_named(everything)}; until then: swupd reset --cancel")


def _is_in_etc(path: str) -> bool:
    return path.rstrip("/") == "/etc" or path.startswith("/etc/")


def _named(parts: Sequence[str]) -> str:
    return " and ".join(f"/{part}" for part in parts)
