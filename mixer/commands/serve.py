"""`mixer serve`: the published tree over HTTP, for trying it out."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mixer.errors import BuildError
from mixer.workspace import Workspace
from swupd.report import Report

NAME = "serve"
HELP = "serve the published tree on this machine"
DESCRIPTION = """\
Serve the published tree (update/www) over HTTP until interrupted. Meant for
trying a mix out on this machine; for others, any web server of static files
does, with TLS. A tree in an object store is shown by the store itself."""
EXAMPLES = """\
examples:
  mixer serve
  mixer serve --port 8080"""

_DEFAULT_BIND = "127.0.0.1"
_DEFAULT_PORT = 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bind", metavar="ADDRESS", default=_DEFAULT_BIND, help=f"address to listen on (default: {_DEFAULT_BIND})"
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        default=_DEFAULT_PORT,
        help=f"port to listen on, 0 for any free one (default: {_DEFAULT_PORT})",
    )


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer import config
    from mixer.serve import serve
    from mixer.store import OBJECT_STORE

    workspace.require()
    mix = config.load(workspace, os.environ)
    if mix.published.startswith(OBJECT_STORE):
        raise BuildError(
            f"the published tree is in an object store, {mix.published}",
            hint="let clients use the store's own web server: see docs/object-store.md",
        )
    www = Path(mix.published) if mix.published else workspace.www
    serve(www, report, bind=args.bind, port=args.port, certificate=mix.certificate)
    return 0
