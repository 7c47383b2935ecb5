"""What becomes of memory that was freed."""

import ctypes
import os
import platform
from typing import Final

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Options of ``mallopt`` (glibc's ``malloc.h``)."""
_KEPT: Final = 32 << 20
"""In bytes. The largest blocks are batches and answers of a few megabytes, and glibc takes no more for the latter option."""


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks of up to 32 MiB, and as much at the end of its heap, for the next that are alike.

    Else it gives those of a megabyte, one for each batch, back to the system, which then has to find, to clear and to map their
    pages anew: on a virtual machine that takes twenty times as long as writing to them.

    Returns whether that was done: not with another C library, nor if ``MALLOC_`` variables say what is wanted.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT) and mallopt(_TRIM_THRESHOLD, _KEPT))
