"""Machines on this one: its processor, and of its files the libraries to read; nothing else, but a cable to another.

Each is a set of Linux namespaces (mounts, network, processes, name) around a root of its own, and ends with the process
that has made it, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SPACES = ["--mount", "--net", "--uts", "--ipc", "--pid"]
# PID 1 of the machine reads from the pipe to its maker: at its end it ends, and Linux kills all others with it
START = """\
set -e
hostname "$1"
ip link set lo up
mount -t tmpfs -o mode=755 machine "$2"
cd "$2"
mkdir proc dev home
mkdir -m 1777 tmp
cp -a /etc .
echo "127.0.0.1 localhost $1" > etc/hosts
give() { mkdir -p ".$1"; mount --rbind "$1" ".$1"; }
for path in /bin /sbin /lib /lib64; do
    if [ -L "$path" ]; then cp -P "$path" .; elif [ -d "$path" ]; then give "$path"; fi
done
for path in $3; do give "$path"; mount -o remount,bind,ro ".$path"; done
for path in $4; do give "$path"; done
mount -t proc proc proc
give /dev
mount -t tmpfs -o mode=1777 shared dev/shm
exec chroot . /bin/sh -c 'echo ready; read -r end'
"""


class NoMachines(Exception):
    """This system does not allow it; why, in one line."""


class Machine:
    """A machine called `name`, with the folders that it is given: to read, and to write to."""

    def __init__(self, name: str, folder: Path, read: Sequence[Path] = (), write: Sequence[Path] = ()) -> None:
        self.name = name
        missing = [tool for tool in ("unshare", "nsenter", "ip", "mount", "chroot") if shutil.which(tool) is None]
        if missing:
            raise NoMachines(f"{', '.join(missing)}: not installed")
        root = folder / f"{name}.root"
        root.mkdir()
        libraries = [Path("/usr"), Path(sys.base_prefix), Path(sys.prefix)]
        words = [name, str(root), " ".join(map(str, [*libraries, *read])), " ".join(map(str, write))]
        self._holder = subprocess.Popen(
            ["unshare", *SPACES, "--propagation", "private", "--fork", "--kill-child", "sh", "-c", START, "sh", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if self._holder.stdout.readline() != "ready\n":
            why = " ".join(self._holder.stderr.read().split())
            self.close()
            raise NoMachines(why)
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        self.pid = int(children)

    def connect(self, other: Machine, mine: str, theirs: str) -> None:
        """Lay a cable; the machines get these addresses, and ask for every other one over it too."""
        cable = ["link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(other.pid)]
        _ip(self, cable)
        for machine, address in ((self, mine), (other, theirs)):
            _ip(machine, ["addr", "add", f"{address}/24", "dev", "cable"])
            _ip(machine, ["link", "set", "cable", "up"])
        for machine in (self, other):
            _ip(machine, ["route", "add", "default", "dev", "cable"])

    def cut(self) -> None:
        """Cut the cable: nothing passes any more, and nobody is told."""
        _ip(self, ["link", "set", "cable", "down"])

    def run(self, *words: str, folder: str = "/tmp", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, with the environment given and little else."""
        command = ["nsenter", "--target", str(self.pid), *SPACES, "--root", f"--wdns={folder}", *words]
        own: Mapping[str, str] = {"PATH": os.environ["PATH"], "HOME": "/home", "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def close(self) -> None:
        """End it, with every process on it."""
        self._holder.kill()
        self._holder.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ip(machine: Machine, words: Sequence[str]) -> None:
    """Raises NoMachines where the kernel has no such cables."""
    command = ["nsenter", "--target", str(machine.pid), "--net", "ip", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoMachines(f"ip {' '.join(words)}: {' '.join(done.stderr.split())}")
