"""The sandbox image that every pod needs, from ten lines of C: a docker archive written by hand.

Called by the node; no registry is asked.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from typing import Final

from onenode.binaries import CACHE, architecture

NAME: Final = "localhost/pause:1"
PAUSE: Final = CACHE / "pause.tar"
SOURCE: Final = """\
#include <signal.h>
#include <unistd.h>
static void stop(int s) { (void)s; _exit(0); }
int main(void) { signal(SIGTERM, stop); signal(SIGINT, stop); signal(SIGCHLD, SIG_IGN); for (;;) pause(); }
"""


def pause_image() -> None:
    """Make the archive, once."""
    if PAUSE.exists():
        return
    program = CACHE / "pause"
    subprocess.run(["gcc", "-Os", "-static", "-x", "c", "-o", program, "-"], input=SOURCE, text=True, check=True)
    layer = _tar([("pause", program.read_bytes(), 0o755)])
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    files = [
        ("config.json", json.dumps(config).encode(), 0o644),
        ("layer.tar", layer, 0o644),
        ("manifest.json", json.dumps(manifest).encode(), 0o644),
    ]
    unfinished = PAUSE.with_suffix(".unfinished")
    unfinished.write_bytes(_tar(files))
    unfinished.rename(PAUSE)


def _tar(files: Sequence[tuple[str, bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
