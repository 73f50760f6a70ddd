"""Two machines without a file in common run a study: the code, the plugins and what is found go over the network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest
from plugin_text import MODULE
from safetensors.numpy import load_file

import miras_search
from miras_search.store import queries
from miras_search.store.database import Database

STUDY = """\
name: apart
plugins: [own_bias]
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
train: {steps: 60, batch: 2, eval_examples: 8, eval_every: 20}
base: {bias: own}
execution: {chunk: 8, gradient: frozen}
vary: {bias: [own, l2]}
seeds: 3
"""
HEAD, OTHER, PORT = "10.77.0.1", "10.77.0.2", "6379"
RAY = str(Path(sys.executable).with_name("ray"))
CODE = Path(miras_search.__file__).parents[1]
TIMED = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[machines.Machine, machines.Machine]]:
    """Two machines on one cable: the first has this checkout and the test's folder, the second has neither."""
    folder = tmp_path / "study"
    (folder / "alone").mkdir(parents=True)
    (folder / "apart.yaml").write_text(STUDY)
    (folder / "own_bias.py").write_text(MODULE)
    try:
        with (
            machines.Machine("first", tmp_path, read=[CODE], write=[folder]) as first,
            machines.Machine("second", tmp_path) as second,
        ):
            first.connect(second, HEAD, OTHER)
            yield first, second
    except machines.NoMachines as error:
        pytest.skip(f"no machines in namespaces here: {error}")


def start_ray(machine: machines.Machine, *words: str) -> None:
    """A Ray of one core there."""
    size = ["--num-cpus=1", "--object-store-memory=80000000"]
    done = machine.run(RAY, "start", *size, "--disable-usage-stats", *words, RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stdout + done.stderr


def found(database: Path) -> dict[tuple[str, int], tuple[object, ...]]:
    """By cell and seed: the state, the finals that are no speeds, the curve, the trained parameters."""
    with Database.open(str(database), read_only=True) as db:
        study = queries.study(db, "apart").id
        curves: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for point in queries.curves(db, study, "loss", "train"):
            curves.setdefault((point.cell, point.seed), []).append((point.step, point.value))
        kept = {
            row.uri.rpartition("/")[2]: load_file(database.parent / row.uri) for row in queries.artifacts(db, study)
        }
        return {
            (row.cell, row.seed): (
                row.state,
                {key: value for key, value in row.values.items() if key[0] not in TIMED},
                curves[row.cell, row.seed],
                {
                    name: array.tobytes()
                    for name, array in kept[f"{row.number:03}-mqar-s{row.seed}-a1.safetensors"].items()
                },
            )
            for row in queries.results(db, study)
        }


@pytest.mark.slow
def test_a_study_needs_nothing_in_common_but_the_network(
    pair: tuple[machines.Machine, machines.Machine], tmp_path: Path
) -> None:
    first, second = pair
    alone = second.run(sys.executable, "-c", "import torch, ray, miras_search")
    assert "No module named 'miras_search'" in alone.stderr, "the second machine has our libraries and not our code"
    token = first.run(RAY, "get-auth-token", "--generate").stdout  # as docs/cluster.md says
    second.run("sh", "-c", 'mkdir .ray && printf %s "$0" > .ray/auth_token', token, folder="/home")
    start_ray(first, "--head", "--include-dashboard=false", f"--node-ip-address={HEAD}", f"--port={PORT}")
    start_ray(second, f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}")
    folder = tmp_path / "study"
    miras = [sys.executable, "-m", "miras_search.cli", "run", "apart.yaml"]
    own = {"folder": str(folder), "PYTHONPATH": str(CODE), "RAY_AUTH_MODE": "token"}
    there = first.run(*miras, "--executor", "ray", "--address", f"{HEAD}:{PORT}", **own)
    assert there.returncode == 0, there.stdout + there.stderr
    here = first.run(*miras, "--executor", "local", "--db", "alone/miras.db", **own)
    assert here.returncode == 0, here.stdout + here.stderr
    assert found(folder / "miras.db") == found(folder / "alone/miras.db")
    with Database.open(str(folder / "miras.db"), read_only=True) as db:
        attempts = queries.attempts(db, queries.study(db, "apart").id)
    assert {row.host for row in attempts} == {"first", "second"}
    assert len(attempts) == 6
    left = second.run("find", "/tmp", "-name", "miras-search-*")
    assert (left.returncode, left.stdout) == (0, "")
