"""The engine's small parts: capacity, provenance, events, checkpoints, the heartbeat, what a worker checks."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from miras_search.engine import capacity
from miras_search.engine.capacity import check_room, cpu_count, local_slots, make_executor, visible_gpus
from miras_search.engine.checkpoints import Checkpoints
from miras_search.engine.events import Interrupted, JobFinished, RunSummary, StudyFinished
from miras_search.engine.jobs import checkpoint_name, new_jobs, task_of
from miras_search.engine.lease import Heartbeat
from miras_search.engine.local import LocalExecutor
from miras_search.engine.messages import TRAINING, Failed, Message, Started, Task
from miras_search.engine.provenance import provenance, without_password
from miras_search.engine.task import _out_of_memory, load, run_task, versions
from miras_search.errors import EnvironmentProblem, MirasError, cause
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import JobRow, LeaseLost
from miras_search.store.writer import Writer


def test_cpu_count_knows_a_container_s_quota(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    free = cpu_count(quota)
    assert free >= 1
    quota.write_text("100000 100000\n")
    assert cpu_count(quota) == 1
    quota.write_text("50000 100000\n")
    assert cpu_count(quota) == 1
    quota.write_text("max 100000\n")
    assert cpu_count(quota) == free


@pytest.mark.parametrize(
    ("gpus", "workers", "slots", "devices"),
    [
        (0.0, None, 8, []),
        (0.0, 20, 20, []),
        (1.0, None, 2, ["3", "5"]),
        (0.5, None, 4, ["3", "3", "5", "5"]),
        (0.3, None, 6, ["3", "3", "3", "5", "5", "5"]),
        (0.25, 3, 3, ["3", "3", "3"]),
        (2.0, None, 1, ["3,5"]),
    ],
)
def test_slots_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: float, workers: int | None, slots: int, devices: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(capacity, "cpu_count", lambda: 8)
    assert local_slots(1, gpus, workers) == (slots, devices)


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    with pytest.raises(EnvironmentProblem, match=r"resources.gpus: 1 a job, and this machine shows none: change"):
        make_executor("local", jobs=4, cpus=1, gpus=1.0)
    with pytest.raises(MirasError, match=r"resources.gpus: 1.5"):
        make_executor("local", jobs=4, cpus=1, gpus=1.5)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}"])
def test_a_cluster_that_is_not_there_is_told_at_once(closed_port: int, form: str) -> None:
    address = form.format(closed_port)
    with pytest.raises(EnvironmentProblem, match=r"the cluster at '.*' was not joined: .*: start one there"):
        check_room("auto", cpus=1, gpus=0.0, address=address)
    with pytest.raises(EnvironmentProblem, match="was not joined"):
        make_executor("ray", jobs=2, cpus=1, gpus=0.0, address=address)


@pytest.mark.parametrize("address", ["a..b:6379", f"{'a' * 70}:6379", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(EnvironmentProblem, match="was not joined") as caught:
        check_room("ray", cpus=1, gpus=0.0, address=address)
    assert "\n" not in str(caught.value)


def test_a_ray_of_our_own_has_the_gpus_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(EnvironmentProblem, match="this machine shows none"):
        check_room("ray", cpus=1, gpus=1.0)


def test_a_cluster_brings_its_own_gpus_and_other_forms_of_address_are_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check_room("auto", cpus=1, gpus=1.0, address=f"127.0.0.1:{listener.getsockname()[1]}")
    for address in ("auto", "local", "ray://head"):
        check_room("ray", cpus=1, gpus=1.0, address=address)


def test_more_cores_than_there_are_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(capacity, "cpu_count", lambda: 2)
    with caplog.at_level(logging.WARNING):
        make_executor("local", jobs=1, cpus=2, gpus=0.0).close()
        assert not caplog.text
        make_executor("auto", jobs=1, cpus=3, gpus=0.0).close()
    assert "resources.cpus: 3: this machine has 2" in caplog.text


def test_auto_starts_no_ray_for_one_job_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "cpu_count", lambda: 8)
    for executor in (
        make_executor("auto", jobs=1, cpus=1, gpus=0.0),
        make_executor("auto", jobs=9, cpus=8, gpus=0.0),
        make_executor("auto", jobs=9, cpus=1, gpus=0.0, workers=1),
    ):
        assert executor.name == "local"
        executor.close()


def test_auto_takes_ray_for_several_and_does_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(slots: int | None, *rest: object) -> object:
        raise EnvironmentProblem(f"ray: refused {slots} slots")

    monkeypatch.setattr(capacity, "cpu_count", lambda: 8)
    monkeypatch.setattr(capacity, "_ray", refuse)
    with caplog.at_level(logging.WARNING):
        executor = make_executor("auto", jobs=9, cpus=2, gpus=0.0)
    assert (executor.name, executor.slots) == ("local", 4)
    assert "refused 4 slots" in caplog.text
    executor.close()
    with pytest.raises(EnvironmentProblem, match="refused"):
        make_executor("ray", jobs=9, cpus=2, gpus=0.0)


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen")  # as Ray does

    left: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    monkeypatch.setattr(ray, "shutdown", lambda: left.append(True))
    with pytest.raises(EnvironmentProblem) as caught:
        make_executor("ray", jobs=2, cpus=1, gpus=0.0)
    assert str(caught.value).startswith("ray: a local Ray could not be started: The current node timed out during")
    assert str(caught.value).endswith("try --executor local") and "\n" not in str(caught.value)
    assert left, "what has started is ended"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://ada:s3cret@db:5432/miras", "postgresql://ada:***@db:5432/miras"),
        ("--db=postgresql+psycopg://ada:p@ss@db/miras", "--db=postgresql+psycopg://ada:***@db/miras"),
        ("postgresql://db/miras?user=ada&password=s3cret&x=1", "postgresql://db/miras?user=ada&password=***&x=1"),
        ("studies/bias.yaml", "studies/bias.yaml"),
    ],
)
def test_passwords_are_hidden(text: str, hidden: str) -> None:
    assert without_password(text) == hidden


def test_provenance_is_json_and_knows_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["miras-search", "run", "--db", "postgresql://a:secret@h/d"])
    outside = provenance()
    assert json.loads(json.dumps(outside)) == outside
    assert outside["folder"] is None and "secret" not in json.dumps(outside)
    assert {"python", "torch", "optuna", "ray", "miras-search"} <= outside["versions"].keys()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = provenance()["folder"]
    assert len(clean["commit"]) == 40 and clean["dirty"] is None
    (tmp_path / "file").write_text("two")
    changed = provenance()["folder"]
    assert changed["commit"] == clean["commit"] and len(changed["dirty"]) == 64
    (tmp_path / "file").write_text("three")
    assert provenance()["folder"]["dirty"] != changed["dirty"]


def test_events_are_json_without_nan() -> None:
    event = JobFinished("dot", "mqar", 1, "diverged", {"train/loss": math.nan, "params": 12.0}, 0.5, None)
    plain = event.to_plain()
    assert plain["event"] == "job_finished" and plain["metrics"] == {"train/loss": None, "params": 12.0}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    summary = RunSummary("tiny", 1, 0, 0, 1, 0, 1, 2.0, interrupted=True)
    assert StudyFinished(summary).to_plain()["summary"]["waiting"] == 1
    assert str(Interrupted(summary)) == "tiny: interrupted with 1 of 2 jobs done"


def test_a_file_where_checkpoints_are_to_go_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with Database.open(tmp_path / "miras.db", create=True) as db, pytest.raises(EnvironmentProblem) as caught:
        Checkpoints(db, Writer(db), None)
    assert str(caught.value).endswith("checkpoints: is a file where checkpoints are to go: move it away")


def test_checkpoints_lie_beside_the_database_with_their_hash(local) -> None:
    local(max_jobs=1)
    (artifact,) = queries.artifacts(local.db, local.study_id)
    assert artifact.uri == "checkpoints/tiny/000-mqar-s0-a1.safetensors"
    data = (local.folder / artifact.uri).read_bytes()
    assert data == b"weights of l2 0"
    assert (artifact.sha256, artifact.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert [path.name for path in (local.folder / "checkpoints/tiny").iterdir()] == ["000-mqar-s0-a1.safetensors"]


def test_a_full_disk_keeps_the_result(local, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Checkpoints, name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_write", full)
    with pytest.raises(EnvironmentProblem, match=r"the checkpoint cannot be written \(No space left on device\)"):
        local(max_jobs=1)
    assert local.results()["l2", 0][0] == "complete"


def test_a_job_is_json_and_names_its_file(tiny) -> None:
    shared = tiny("resources={cpus: 3, gpus: 0.5}")
    assert [(job.trial_number, job.seed) for job in new_jobs(shared)] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (0, 1),
        (1, 1),
        (2, 1),
    ]
    row = JobRow(7, 1, 1, "dot", "mqar", 1, "waiting", 0)
    task = task_of(shared, [row], TRAINING)
    assert json.loads(json.dumps(task.jobs[0])) == task.jobs[0]
    assert (task.device, task.threads) == ("cuda", 3)
    odd = JobRow(7, 1, 1, "dot", "mqar(length=32, x=1/2)", 1, "waiting", 0)
    assert checkpoint_name(shared.name, odd, 2) == "tiny/001-mqar_length_32_x_1_2-s1-a2.safetensors"


def test_the_heartbeat_reports_a_lost_lease_and_outlives_a_busy_database() -> None:
    beats: list[int] = []
    busy, looked, through = (threading.Event() for _ in range(3))

    class Writer:
        def heartbeat(self, run_id: int) -> None:
            beats.append(run_id)
            if len(beats) == 1:
                busy.set()
                raise EnvironmentProblem("database is locked")
            assert looked.wait(30)
            through.set()
            raise LeaseLost("run 5 is lost")

    with Heartbeat(Writer(), 5, seconds=0.001) as heartbeat:
        assert busy.wait(30)
        heartbeat.check()
        looked.set()
        assert through.wait(30)
    with pytest.raises(LeaseLost):
        heartbeat.check()
    assert beats == [5, 5]


def test_a_task_that_cannot_be_loaded_fails_in_words(tmp_path: Path) -> None:
    sent: list[Message] = []

    def send(messages: Sequence[Message]) -> bool:
        sent.extend(messages)
        return False

    (ended,) = run_task(3, Task("no_such_module:run", ({},), "cpu", 1, True), send)
    assert isinstance(ended, Failed) and (ended.state, ended.error_type) == ("failed", "ModuleNotFoundError")
    assert isinstance(sent[0], Started) and sent[0].versions == versions()
    assert load(TRAINING).__name__ == "train_jobs"


def test_a_worker_of_another_version_is_refused(local, monkeypatch: pytest.MonkeyPatch) -> None:
    here = versions() | {"torch": "1.0", "extra": "2"}
    monkeypatch.setattr("miras_search.engine.loop.versions", lambda: here)
    with pytest.raises(EnvironmentProblem, match=r"a worker has extra missing \(here 2\), torch .* \(here 1.0\)"):
        local()
    assert not queries.running(local.db, local.study_id)


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "miras_search"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise ImportError('broken install')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    executor = LocalExecutor(1, threads=1)
    try:
        executor.submit(1, Task("x:y", ({},), "cpu", 1, False))
        (message,) = executor.poll(30)
    finally:
        executor.close()
    assert isinstance(message, Failed) and message.state == "lost"
    assert "exit code 1" in message.error_text and "broken install" in message.error_text


def test_the_local_executor_keeps_to_its_slots() -> None:
    with pytest.raises(ValueError, match="at least one"):
        LocalExecutor(0, threads=1)
    executor = LocalExecutor(1, threads=1)
    task = Task("threading:main_thread", ({},), "cpu", 1, False)
    try:
        assert executor.poll(0.0) == []
        executor.submit(1, task)
        with pytest.raises(RuntimeError, match="all 1 slots are busy"):
            executor.submit(2, task)
        executor.kill(1)
        assert executor.poll(0.0) == []
    finally:
        executor.close()
        executor.close()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("driver", {"torch", "ray", "triton"}),
        ("worker", {"torch", "ray", "optuna", "sqlalchemy", "pydantic"}),
        ("ray_tasks", {"torch", "optuna", "sqlalchemy"}),
        ("events", {"torch", "ray", "optuna", "sqlalchemy"}),
        ("provenance", {"torch", "ray", "optuna", "sqlalchemy"}),
    ],
)
def test_imports_stay_light(module: str, absent: set[str]) -> None:
    code = f"import sys, miras_search.engine.{module}; print(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (None, None, ""),
        ("the worker died\nkilled by signal 9\n", "Lost", "Lost: killed by signal 9"),
        ("Traceback (most recent call last):\n  File\nValueError: no\n", "ValueError", "ValueError: no"),
        # torch's messages go on, to a mark alone
        (
            'Traceback (most recent call last):\n  File\n    code\nTypeError: two forms:\n * (int)\n\n"\n',
            "TypeError",
            "TypeError: two forms:",
        ),
        (
            "Traceback (most recent call last):\n  a\nKeyError: 1\n\nDuring handling of the above:\n\n"
            "Traceback (most recent call last):\n  b\nmy.Odd: 2\nwith a note",
            None,
            "my.Odd: 2",
        ),
    ],
)
def test_the_line_that_says_what_happened(text: str | None, kind: str | None, told: str) -> None:
    assert cause(text, kind) == told


def test_memory_that_torch_could_not_have_on_the_cpu_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert _out_of_memory(caught.value)
    assert not _out_of_memory(RuntimeError("another"))
