"""The batch script of docs/slurm.md, under a scheduler that ends it once: requeued, it finds the same numbers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    undisturbed = cli("run", "batched.yaml", "--executor", "local", "--db", "other.db", "--quiet")
    assert undisturbed.code == 0, undisturbed.err
    found = [cli("show", "batched", "0", "--db", name, "--json").json["jobs"] for name in ("miras.db", "other.db")]
    kept = [
        [metric for job in jobs for metric in job["metrics"] if metric["name"] in ("accuracy", "loss")]
        for jobs in found
    ]
    assert kept[0] == kept[1] and kept[0]
