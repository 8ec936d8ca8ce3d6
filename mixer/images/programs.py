"""What the programs that work on images see of the environment: nothing of the caller's."""

from __future__ import annotations

from types import MappingProxyType

ENVIRONMENT = MappingProxyType({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"})
