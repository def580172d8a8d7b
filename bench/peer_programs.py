"""The programs that peers are made of: built or unpacked once into a cache, and taken from there ever after.

Called by the modules of the peers. What is built is pinned by version and checksum and comes through the Go module
proxy; what Debian has is unpacked, not installed, so that no service of the system starts.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("KAPSEL_PEERS_CACHE", Path.home() / ".cache/kapsel-peers"))
GO_REMEDY: Final = "install Go (https://go.dev/dl) and run it again: it is built once, in about five minutes"

# The server and those of its libraries that a small Debian has not.
REDIS_PACKAGES: Final = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
REDIS_REMEDY: Final = "install redis-server 6.2 or newer, or run this on Debian, where its package is unpacked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change to a source file of which there must be exactly one place."""

    path: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Return the changed text."""
        if text.count(self.old) != 1:
            raise SystemExit(f"{self.path} is not what it was: {self.old!r} is in it {text.count(self.old)} times")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """A program of a public Go module, and what must be done to the module's files before it can be built and run."""

    name: str
    module: str
    version: str
    checksum: str  # of the module, as in a go.sum
    package: str
    files: Mapping[str, str]  # what the module embeds but its archive lacks
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What can be started, with the environment that it needs."""

    path: Path
    environment: Mapping[str, str]


def built(program: GoProgram, cache: Path = CACHE) -> Path:
    """Return the program; build it if the cache has it not."""
    path = cache / "bin" / f"{program.name}-{program.version}"
    if not path.exists():
        if shutil.which("go") is None:
            raise SystemExit(f"{program.name} {program.version} must be built: {GO_REMEDY}")
        print(f"building {program.name} {program.version} (once)", file=sys.stderr)
        _build(program, _downloaded(program), path)
    return path


def _downloaded(program: GoProgram) -> Path:
    """Return the directory of the module's files, which are checked against the pinned checksum."""
    command = ["go", "mod", "download", "-json", f"{program.module}@{program.version}"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    told = json.loads(done.stdout) if done.stdout.startswith("{") else {"Error": done.stderr.strip()}
    if "Error" in told:
        raise SystemExit(f"{program.name} {program.version} cannot be had: {told['Error']}")
    if told["Sum"] != program.checksum:
        raise SystemExit(f"{program.module} {program.version} is {told['Sum']}, expected {program.checksum}")
    return Path(told["Dir"])


def _build(program: GoProgram, module: Path, path: Path) -> None:
    # Built aside and renamed: a build that was interrupted leaves nothing that looks finished.
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=path.parent) as directory:
        sources, made = Path(directory, "sources"), Path(directory, "program")
        # The module cache is read-only; a copy of a file's content alone is not.
        shutil.copytree(module, sources, copy_function=shutil.copyfile)
        for found in (sources, *sources.rglob("*/")):
            found.chmod(0o755)
        for name, text in program.files.items():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_text(text)
        for edit in program.edits:
            file = sources / edit.path
            file.write_text(edit.apply(file.read_text()))
        command = ["go", "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-o", str(made), program.package]
        subprocess.run(command, cwd=sources, check=True, env=os.environ | {"CGO_ENABLED": "0"})
        made.rename(path)


def redis_server(cache: Path = CACHE) -> Program:
    """Return Redis: the machine's own, or Debian's package unpacked into the cache."""
    installed = shutil.which("redis-server")
    if installed is not None:
        return Program(path=Path(installed), environment={})
    root = cache / "redis"
    if not root.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise SystemExit(f"redis-server is missing: {REDIS_REMEDY}")
        _unpack(REDIS_PACKAGES, root)
    libraries = sorted({str(found.parent) for found in (root / "usr" / "lib").glob("*/lib*.so.*")})
    environment = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    return Program(path=root / "usr" / "bin" / "redis-server", environment=environment)


def _unpack(packages: tuple[str, ...], root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=root.parent) as directory:
        archives, files = Path(directory, "archives"), Path(directory, "files")
        archives.mkdir()
        # apt downloads as a user of its own where it can, and complains where it cannot.
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *packages]
        if subprocess.run(command, cwd=archives, check=False).returncode != 0:
            raise SystemExit(f"the packages of Redis cannot be had (apt-get update may help), or {REDIS_REMEDY}")
        for archive in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(files)], check=True)
        files.rename(root)


def redis_version(program: Program) -> str:
    """Return which Redis this is, in its own words."""
    command = [str(program.path), "--version"]
    done = subprocess.run(command, env=dict(program.environment), capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("Redis server v=").split()[0]
