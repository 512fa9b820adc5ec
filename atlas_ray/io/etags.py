"""Etags: short texts that change when an object or a file changes, and are known without its content."""

import os
import time

SETTLED_S = 2.0
"""A file has no etag until this long after it was changed: on a disk of coarse times, a second change soon after the
first would leave both of its times as they were."""


def etag_of_object(e_tag: str | None, size: int) -> str | None:
    """Return the etag of an object in a store; None if the store gives it none."""
    name = (e_tag or "").strip('"')
    return f"{name}-{size}" if name else None


def etag_of_file(status: os.stat_result) -> str | None:
    """Return the etag of a file: its size, times and inode. None if it was changed a moment ago.

    The time of the last change to the inode is among them, which no program can set: a copy that keeps the time of
    modification, or a file moved into the place of another one, has another etag.
    """
    if time.time() - status.st_ctime < SETTLED_S:
        return None
    return f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}"
