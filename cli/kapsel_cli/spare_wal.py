"""Segments of the write-ahead log that a new database has before it needs them.

Called by EmbeddedPostgres while initdb works. Postgres makes a segment when the log first comes to it: 16 MiB of zeros,
written and synced by whichever backend commits, and all others wait for it. Later it uses old segments again; only a
new database has none, until its first checkpoint. A file that lies in the place of the next segment is taken as it is:
the checkpointer lays them out like this, too (XLogFileInit in Postgres' xlog.c).
"""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

SEGMENT_BYTES: Final = 16 << 20  # initdb's default
COUNT: Final = 8  # half of what min_wal_size keeps once they have been used: each costs a first start 30 ms
ROOM: Final = 1 << 30  # bytes that must be free on the disk: the database itself needs some of them meanwhile
_ZEROS: Final = bytes(1 << 20)


def lay_out(directory: Path, own: Callable[[Path], None], given_up: threading.Event) -> list[Path]:
    """Write the segments into `directory`, synced, each given to its user by `own`; nothing if there is no room.

    Once the database is given up, no further one is begun.

    They are for a database that `initdb` has just made, whose log is in its first segment.
    """
    laid: list[Path] = []
    try:
        if shutil.disk_usage(directory.parent).free < ROOM:
            return []
        directory.mkdir()
        for number in range(2, 2 + COUNT):
            if given_up.is_set():
                break
            laid.append(directory / f"{1:08X}{0:08X}{number:08X}")
            with laid[-1].open("xb", buffering=0) as file:
                for _ in range(SEGMENT_BYTES // len(_ZEROS)):
                    file.write(_ZEROS)
                os.fsync(file.fileno())
            laid[-1].chmod(0o600)
            own(laid[-1])
    except OSError:  # the disk is full, or a quota: Postgres makes do without, and says so when it cannot
        for path in laid:
            path.unlink(missing_ok=True)
        return []
    return laid
