"""Memory settings of the command's own process."""

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_KEPT = 2**31 - 1  # bytes; the most that fits mallopt's int
_MAX_ON_HEAP = 32 * 2**20  # the largest value that it accepts for this


def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB of freed memory for the next training step.

    By default glibc returns the memory of a step's large tensors to the system and requests it
    again in the next step, with a page fault for every 4 KiB. Measured on the people UNet: 7 to 9 %
    of a step with 48 to 64 subjects. Does nothing with another C library.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _MAX_KEPT)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAX_ON_HEAP)
