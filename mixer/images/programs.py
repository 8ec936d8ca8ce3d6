"""What the programs that work on images see of the environment: nothing of the caller's."""

from __future__ import annotations

from types import MappingProxyType

from swupd import process

ENVIRONMENT = MappingProxyType({**process.ENVIRONMENT, "TZ": "UTC"})
