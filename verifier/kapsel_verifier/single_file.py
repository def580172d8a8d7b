"""Writes kapsel-verify as one file that any Python runs, to be handed to an auditor: `make verifier`.

`python -m kapsel_verifier.single_file dist/kapsel-verify.pyz` packs this package, nothing else, and the licence if one
is named. The file needs no pynacl: where it is missing signatures are checked in Python (`pure_ed25519`). The same
sources make the same bytes on every machine, so that whoever has the sources can check the file that they were given.
"""

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MAIN: Final = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("kapsel-verify: needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])

from kapsel_verifier.cli import main

sys.exit(main())
"""
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold


def write(target: Path, licence: Path | None = None) -> None:
    """Write the file and make it executable; the folder above must exist."""
    members = {f"kapsel_verifier/{path.name}": path.read_bytes() for path in Path(__file__).parent.glob("*.py")}
    members["__main__.py"] = MAIN.encode("ascii")
    if licence is not None:
        members["LICENSE"] = licence.read_bytes()
    with target.open("wb") as file:
        file.write(_SHEBANG)
        # Stored, not deflated: what zlib makes of it differs between its versions.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(members):
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.create_system = 3  # as on Unix, also where it is made on Windows
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, members[name])
    target.chmod(0o755)


def main(arguments: Sequence[str]) -> int:
    """Write the file that the arguments name, with the licence if they name one."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m kapsel_verifier.single_file TARGET [LICENCE]", file=sys.stderr)
        return 2
    target = Path(arguments[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, Path(arguments[1]) if len(arguments) == 2 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
