"""Tells where a file of the journal may be mapped, with room that is reserved ahead.

A mapped file is written without a call of the system, so an error has nobody to tell: the kernel ends the process with
SIGBUS. That must not come of a full disk. It does where a file system writes what is changed to another place, as btrfs
and ZFS do, since the room that was reserved is then no room for the next change. So only file systems are taken that
are known to write in place; on any other one, a network's or a container's own layers included, lines are written.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["ROOM_BYTES", "room_in"]

# How much room is reserved at a time.
ROOM_BYTES: Final = 131_072
_IN_PLACE: Final = frozenset({"ext2", "ext3", "ext4", "tmpfs", "xfs"})


def room_in(directory: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> int:
    """Return how many bytes may be reserved and mapped at a time in a directory, 0 for none.

    `mounts` lists the mounted file systems as proc_pid_mountinfo(5) says.
    """
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        device = os.stat(directory).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in mounts.read_text("utf-8", "replace").splitlines():
            mount, _, system = line.partition(" - ")
            if mount.split()[2] == number:
                return ROOM_BYTES if system.split()[0] in _IN_PLACE else 0
    return 0
