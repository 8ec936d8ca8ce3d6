"""Memory that is free goes back to the system, so that an update needs no more of it than it uses at a time.

By itself glibc keeps blocks for later, and larger ones the larger they have been: an update of a server OS needed 127
MB instead of 107, at equal speed. Other C libraries have neither the habit nor the function, and are left alone.
"""

from __future__ import annotations

import ctypes

LARGE_BLOCK_BYTES = 4 << 20
"""A block of this size or more is given back as soon as it is free."""
KEPT_BYTES = 1 << 20
"""Free memory at the end of the heap that is kept."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def give_back_what_is_free() -> None:
    """To be called before the first large block is used: later, thresholds have grown with what was freed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
