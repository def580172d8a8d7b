"""The operating system user that Postgres runs as when kapsel itself is run by root.

Called by EmbeddedPostgres. Postgres refuses to run as root, rightly: its superuser could then do anything.
"""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kapsel_cli.errors import PostgresError

NAME: Final = "kapsel"
MACOS_NAME: Final = "_postgres"  # macOS brings this one along and has no useradd
USERADD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom to become; None in every field means: nobody else, stay who we are."""

    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Give `path` to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def let_through(self, path: Path) -> list[Path]:
        """Make every directory above `path` passable for this user and return those that were changed.

        Passable only (`chmod o+x`): nobody can list a directory that they could not list before.
        """
        if self.uid is None:
            return []
        changed = []
        for parent in path.resolve().parents:
            status = parent.stat()
            if status.st_uid != self.uid and not status.st_mode & stat.S_IXOTH:
                parent.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
                changed.append(parent)
        return changed

    def let_run(self, program: Path) -> None:
        """Make a program readable for this user with all that is installed beside it: a strict umask forbids that."""
        if self.uid is None or program.stat().st_mode & stat.S_IXOTH:
            return
        installed = program.parent.parent
        for path in (installed, *installed.rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def user() -> User:
    """Return the user for Postgres: ourselves, or if we are root a user of its own, created if need be."""
    if os.geteuid() != 0:
        return User()
    name = MACOS_NAME if sys.platform == "darwin" else NAME
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = _create(name)
    return User(uid=entry.pw_uid, gid=entry.pw_gid)


def _create(name: str) -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    reason = "there is no useradd on this machine"
    # Somebody else may hold the lock of the password file, or be creating this very user.
    deadline = time.monotonic() + USERADD_SECONDS
    while useradd is not None and time.monotonic() < deadline:
        command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        done = subprocess.run(
            [*command, "--shell", "/usr/sbin/nologin", name], capture_output=True, text=True, check=False
        )
        try:
            return pwd.getpwnam(name)
        except KeyError:
            reason = done.stderr.strip() or f"useradd ended with {done.returncode}"
            time.sleep(0.1)
    raise PostgresError(
        f"Postgres does not run as root and the user {name} cannot be created: {reason}",
        f"Create a system user named {name}, or run kapsel as another user than root",
    )
