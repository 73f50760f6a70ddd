"""The batch script of docs/slurm.md: a batch system ends it once; requeued, it finds the same numbers.

Once under a pretended system, that needs nothing installed; once under a Slurm of its own, on a machine in namespaces.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest

import miras_search

STUDY = """\
name: batched
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 500, batch: 2, eval_examples: 4, eval_every: 0}
base: delta_net
vary: {}
seeds: 1
"""
PAGE = Path(__file__).parents[2] / "docs/slurm.md"
CODE = Path(miras_search.__file__).parents[1]
PATIENCE = 300.0  # seconds without a word from a job, in its queue or not, after which a test gives up
SLURM = """\
ClusterName=here
SlurmctldHost=node
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
NodeName=node NodeAddr=127.0.0.1 CPUs=1
PartitionName=all Nodes=node Default=YES State=UP
"""


def script() -> str:
    """The only script of the page."""
    (found,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


@pytest.mark.slow
def test_the_script_of_the_page_survives_the_end_of_its_time(cli, here: Path) -> None:
    (here / "batched.yaml").write_text(STUDY)
    (here / "study.sbatch").write_text(script())
    stubs = here / "bin"
    stubs.mkdir()
    commands = {
        "miras-search": f'exec {sys.executable} -m miras_search.cli "$@" --json',
        "scontrol": f'echo "$@" >> {here}/queue',
    }
    for name, line in commands.items():
        (stubs / name).write_text(f"#!/bin/sh\n{line}\n")
        (stubs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{stubs}:{os.environ['PATH']}", "STUDY": "batched.yaml", "SLURM_JOB_ID": "17"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "study.sbatch"],
            cwd=here,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    with start() as job:
        assert job.stdout is not None
        for line in job.stdout:
            if json.loads(line)["event"] == "progress":
                job.send_signal(signal.SIGTERM)  # to the script alone, as B:TERM does
                break
        last = json.loads(job.stdout.read().splitlines()[-1])
        assert job.wait() == 0
    assert last["interrupted"] and last["waiting"] == 1
    assert (here / "queue").read_text() == "requeue 17\n"
    assert (here / "checkpoints/batched/000-mqar-s0.snapshot").exists()

    with start() as job:
        assert job.wait() == 0
    assert (here / "queue").read_text() == "requeue 17\n", "a finished study is not queued again"
    finds_the_same(cli)


def finds_the_same(cli) -> None:
    """The database here holds what an undisturbed run finds."""
    undisturbed = cli("run", "batched.yaml", "--executor", "local", "--db", "other.db", "--quiet")
    assert undisturbed.code == 0, undisturbed.err
    found = [cli("show", "batched", "0", "--db", name, "--json").json["jobs"] for name in ("miras.db", "other.db")]
    kept = [
        [metric for job in jobs for metric in job["metrics"] if metric["name"] in ("accuracy", "loss")]
        for jobs in found
    ]
    assert kept[0] == kept[1] and kept[0]


class Slurm:
    """A Slurm of one node, on a machine of its own, whose jobs run in `folder`."""

    def __init__(self, machine: machines.Machine, folder: Path, commands: Path) -> None:
        self._machine, self._folder, self._commands = machine, folder, commands
        own = folder / "slurm"
        for name in ("state", "spool"):
            (own / name).mkdir(parents=True)
        (own / "slurm.conf").write_text(SLURM.format(folder=own))
        (own / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # which is never asked for anything
        (own / "munge.key").write_bytes(os.urandom(64))
        (own / "munge.key").chmod(0o600)
        self("ip", "addr", "add", "10.78.0.1/32", "dev", "lo")  # with 127.0.0.1 alone no name is looked up
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self("munged", "--force", *(f"--{option}={own}/munge.{ending}" for option, ending in files.items()))
        self("slurmctld")
        self("slurmd")

    def __call__(self, *words: str) -> str:
        """What a command says. Fails the test with its complaint."""
        done = self._machine.run(
            *words,
            folder=str(self._folder),
            PATH=f"{self._commands}:{os.environ['PATH']}",
            PYTHONPATH=str(CODE),
            SLURM_CONF=str(self._folder / "slurm/slurm.conf"),
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def events(pipe: Path) -> Iterator[dict[str, object]]:
    """What the next one to write into the pipe says, until it ends."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        rest = b""
        while True:
            assert select.select([file], [], [], PATIENCE)[0], f"nothing was said for {PATIENCE:g} s"
            found = os.read(descriptor, 65536)
            if not found:
                return
            *lines, rest = (rest + found).split(b"\n")
            yield from map(json.loads, lines)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("slurmctld") is None, reason="no Slurm here: apt-get install slurm-wlm")
def test_a_real_slurm_requeues_the_script_of_the_page(cli, here: Path) -> None:
    (here / "batched.yaml").write_text(STUDY)
    (here / "study.sbatch").write_text(script())
    os.mkfifo(pipe := here / "events")
    commands = here / "bin"
    commands.mkdir()
    (commands / "miras-search").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m miras_search.cli "$@" --json > {pipe}\n'
    )
    (commands / "miras-search").chmod(0o755)
    try:
        with machines.Machine("node", here, read=[CODE], write=[here]) as node:
            slurm = Slurm(node, here, commands)
            words = ["--parsable", "--cpus-per-task=1", "--output=said", "--export=ALL,STUDY=batched.yaml"]
            job = slurm("sbatch", *words, "study.sbatch").strip()
            first = events(pipe)
            assert any(event["event"] == "progress" for event in first)
            slurm("scancel", "--batch", "--signal=TERM", job)  # as --signal=B:TERM@120 does at its time
            *_, last = first
            assert last["interrupted"] and last["waiting"] == 1
            assert (here / "checkpoints/batched/000-mqar-s0.snapshot").exists()
            *_, last = events(pipe)  # it was requeued, and has gone on
            assert last["complete"] == 1
            slurm("sbatch", "--wait", f"--dependency=afterany:{job}", "--output=after", "--wrap=true")
            told = slurm("scontrol", "show", "job", job)
    except machines.NoMachines as error:
        pytest.skip(f"no machines in namespaces here: {error}")
    assert "JobState=COMPLETED" in told and "Restarts=1" in told and "ExitCode=0:0" in told
    finds_the_same(cli)
