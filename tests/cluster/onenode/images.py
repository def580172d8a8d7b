"""Builds an ordinary Containerfile with buildah and loads the image into the node.

Called by the command tests/cluster/cluster and by the fixtures of tests/cluster/node. Where no registry can be reached
the two base images that a Containerfile here may name are made from Debian packages, once, under the same names.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from onenode import binaries
from onenode.binaries import CACHE, PATH
from onenode.errors import ClusterError
from onenode.node import load

BASES: Final = {
    "docker.io/library/debian:bookworm-slim": "ca-certificates",
    "docker.io/library/python:3.11-slim": "ca-certificates,python3,python3-venv,python3-pip",
}
ON_PATH: Final = {"python": "python3", "python3": "python3", "pip": "pip3"}  # as in the image this stands for
STORE: Final = ("--storage-driver", "overlay", "--root", str(CACHE / "images"), "--runroot", "/run/kapsel-images")
# How this machine reaches a package index: a build asks the same one.
HOST: Final = ("/etc/pip.conf", "/etc/ssl/certs")


def build(name: str, containerfile: Path, context: Path) -> None:
    """Build an image; unchanged layers come from the cache."""
    binaries.install(binaries.IMAGE_PACKAGES)
    _base_images()
    volumes = [f"--volume={path}:{path}:ro" for path in HOST if Path(path).exists()]
    # Files bear no time of their own, so that the same sources make the same layers.
    how = ["--quiet", "--pull-never", "--layers", "--timestamp", "0", "--isolation", "chroot", *volumes]
    _buildah("build", *how, "--tag", name, "--file", str(containerfile), str(context))


def push(name: str, archive: Path) -> None:
    """Write an image as a docker archive."""
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}")


def build_and_load(name: str, containerfile: Path, context: Path) -> None:
    """Build an image and load it into the node."""
    build(name, containerfile, context)
    archive = CACHE / "image.tar"
    push(name, archive)
    load(archive)
    archive.unlink()


def _base_images() -> None:
    have = _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
    for name, packages in BASES.items():
        if name not in have:
            _make_base(name, packages)


def _make_base(name: str, packages: str) -> None:
    root = CACHE / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    print(f"making a stand-in for {name} (once)", file=sys.stderr)
    _run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root), _mirror()])
    for leftovers in ("var/lib/apt/lists", "var/cache/apt/archives"):
        shutil.rmtree(root / leftovers)
    if "python" in name:
        for tool, target in ON_PATH.items():
            (root / "usr/local/bin" / tool).symlink_to(f"/usr/bin/{target}")
    recipe = CACHE / "Base"
    recipe.write_text('FROM scratch\nCOPY rootfs/ /\nENV PATH=/usr/local/bin:/usr/bin:/bin\nCMD ["bash"]\n')
    _buildah("build", "--quiet", "--tag", name, "--file", str(recipe), str(CACHE))
    shutil.rmtree(root)


def _mirror() -> str:
    """Return where this machine gets its Debian packages."""
    listed = Path("/etc/apt/sources.list.d/debian.sources").read_text().splitlines()
    return next(line.split()[1] for line in listed if line.startswith("URIs:"))


def _buildah(command: str, *arguments: str) -> str:
    return _run(["buildah", *STORE, command, *arguments])


def _run(command: list[str], environment: Mapping[str, str] = os.environ) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, "PATH": PATH})
    if done.returncode != 0:
        raise ClusterError(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout
