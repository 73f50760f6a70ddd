"""Optimiser, evaluation and checkpoints, each against plain torch or against itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from miras_search.errors import MirasError
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.tasks import IGNORE, Batch, task_from_spec
from miras_search.training import device
from miras_search.training.checkpoint import load_checkpoint, save_checkpoint
from miras_search.training.config import Seeds, TrainConfig
from miras_search.training.device import CLEAR_REFS, keep_freed_memory, peak_bytes, start_peak
from miras_search.training.evaluate import Labelled, evaluate
from miras_search.training.job import Job
from miras_search.training.optimiser import Optimiser, split_by_decay
from miras_search.training.run import train
from miras_search.training.start import new_model

CPU = torch.device("cpu")
SMAPS = Path("/proc/self/smaps")
TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}


def job() -> Job:
    config = TrainConfig(steps=6, batch=4, eval_examples=8, eval_every=0)
    return Job(DesignPoint.parse("delta_net"), ModelConfig(layers=1, d_model=16, heads=2), TASK, config, seed=3)


class Toy(nn.Module):
    """A module with every kind of parameter that the decay rule tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(5, 4))
        self.map = nn.Linear(4, 4)
        self.start = nn.Parameter(torch.ones(4, 4))
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.fixed = nn.Linear(4, 4, bias=False).requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fixed(self.map(self.embed[tokens]) @ self.start) @ self.embed.T


def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def test_only_maps_are_decayed() -> None:
    model = toy()
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain = split_by_decay(model)
    assert [names[id(p)] for p in decayed] == ["map.weight"]
    assert sorted(names[id(p)] for p in plain) == ["embed", "map.bias", "start"]


def test_optimiser_is_clipped_adamw_with_the_schedule() -> None:
    config = TrainConfig(steps=8, lr=0.1, weight_decay=0.3, clip=0.5, warmup=0.25)
    ours, theirs = toy(), toy()
    optimiser = Optimiser(ours, config)
    decayed, plain = split_by_decay(theirs)
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": plain, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), foreach=False)
    generator = torch.Generator().manual_seed(1)
    for step in range(8):
        # gradients of both are drawn, not computed: two models that drift apart would drift ever faster
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            if one.requires_grad:
                one.grad = (0.5 if step % 2 else 0.01) * torch.randn(one.shape, generator=generator)
                two.grad = one.grad.clone()
        norm = optimiser.step(step)
        expected = nn.utils.clip_grad_norm_([p for p in theirs.parameters() if p.grad is not None], 0.5)
        assert (norm > 0.5) == bool(step % 2)  # some steps are clipped and some are not
        for group in reference.param_groups:
            group["lr"] = 0.1 * config.share(step)
        reference.step()
        reference.zero_grad()
        torch.testing.assert_close(norm, expected)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=name)


def test_zero_clip_never_clips() -> None:
    moved = []
    for clip in (0.0, 1e9):
        model = toy()
        optimiser = Optimiser(model, TrainConfig(clip=clip))
        F.cross_entropy(20 * model(torch.arange(5)), torch.arange(5)).backward()
        optimiser.step(0)
        moved.append(model.map.weight.detach().clone())
    assert torch.equal(*moved)


class Parrot(nn.Module):
    """Logits that were written down beforehand; the tokens say which sequence is asked for."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.logits[tokens[:, 0]]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_scores_are_micro_averages_over_labels(size: int) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    logits = torch.from_numpy(rng.normal(size=(5, 3, 4))).float()
    targets = rng.integers(0, 4, size=(5, 3))
    targets[0, 1:] = IGNORE  # sequences with one label, none, and three
    targets[1] = IGNORE
    batch = Batch(np.arange(5)[:, None].repeat(6, axis=1), np.zeros((5, 3), dtype=np.int64), targets)
    score = evaluate(Parrot(logits), Labelled.of(batch, CPU), size)
    kept = [(logits[b, m], int(targets[b, m])) for b in range(5) for m in range(3) if targets[b, m] != IGNORE]
    assert len(kept) == 10
    assert score.accuracy == pytest.approx(sum(int(row.argmax()) == t for row, t in kept) / 10)
    assert score.loss == pytest.approx(sum(float(row.logsumexp(0) - row[t]) for row, t in kept) / 10, rel=1e-5)


def test_score_without_a_number_is_not_finite() -> None:
    batch = Batch(*(np.zeros((1, 1), dtype=np.int64) for _ in range(3)))
    assert not evaluate(Parrot(torch.full((1, 1, 4), torch.nan)), Labelled.of(batch, CPU), 1).finite


def test_evaluation_leaves_mode_and_gradients_alone() -> None:
    model = new_model(job())
    data = Labelled.of(task_from_spec(TASK).evaluation("validation", 1, 4), CPU)
    evaluate(model, data, 2)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_checkpoint_gives_the_model_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trial-0.safetensors"
    outcome = train(job(), device="cpu", checkpoint=path)
    loaded, model = load_checkpoint(path)
    assert loaded == job()
    data = Labelled.of(task_from_spec(TASK).evaluation("test", 0, 8), CPU)
    again, copy = load_checkpoint(path)[1], tmp_path / "copy.safetensors"
    save_checkpoint(copy, loaded, model, 6)
    with torch.no_grad():
        logits = model(data.tokens, data.positions)
        assert torch.equal(logits, again(data.tokens, data.positions))
        assert torch.equal(logits, load_checkpoint(copy)[1](data.tokens, data.positions))
        assert not torch.equal(logits, new_model(job())(data.tokens, data.positions))
    assert [f.name for f in path.parent.iterdir()] == [path.name]  # no temporary file is left
    assert outcome.state == "complete"


def test_checkpoint_holds_what_the_outcome_measured(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    outcome = train(job(), device="cpu", checkpoint=path)
    data = Labelled.of(task_from_spec(TASK).evaluation("test", Seeds.of(3).eval, 8), CPU)
    score = evaluate(load_checkpoint(path)[1], data, 128)
    finals = {(f.name, f.split): f.value for f in outcome.finals}
    assert (score.accuracy, score.loss) == (finals["accuracy", "test"], finals["loss", "test"])


def test_failed_write_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("miras_search.files.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, job(), new_model(job()), 1)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_diverged_training_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.findings.HUGE", 1e-3)
    path = tmp_path / "model.safetensors"
    assert train(job(), device="cpu", checkpoint=path).state == "diverged"
    assert not path.exists()


@pytest.mark.parametrize(("content", "words"), [(None, "no such checkpoint"), (b"hello", "not a checkpoint")])
def test_file_that_is_no_checkpoint(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MirasError, match=words):
        load_checkpoint(path)


def test_safetensors_of_someone_else_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(MirasError, match="not a checkpoint of this version"):
        load_checkpoint(path)


def test_parameters_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = new_model(job())
    model.register_parameter("extra", nn.Parameter(torch.ones(1)))
    save_checkpoint(path, job(), model, 1)
    with pytest.raises(MirasError, match="do not match: extra"):
        load_checkpoint(path)


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="the peak cannot be reset here")
def test_peak_forgets_the_job_before() -> None:
    keep_freed_memory()
    start_peak(CPU)
    before = peak_bytes(CPU)
    blocks = [torch.ones(1 << 18) for _ in range(200)]  # 200 MiB in blocks that the C library would keep
    del blocks
    assert peak_bytes(CPU) - before > 150 << 20
    start_peak(CPU)
    assert peak_bytes(CPU) - before < 50 << 20


@pytest.mark.skipif(not SMAPS.exists() or device._libc() is None, reason="no glibc on Linux here")
def test_the_heap_grows_by_large_pages_where_the_system_has_them() -> None:
    keep_freed_memory()
    libc = device._libc()
    assert libc is not None
    given = device._large_pages(libc)
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text(), flags=re.MULTILINE)
    heap = [area for area in areas if area.splitlines()[:1] and area.splitlines()[0].endswith("[heap]")]
    assert given == any(re.search(r"^VmFlags:.* hg( |$)", area, re.MULTILINE) for area in heap)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("miras_search.training.run", ("ray", "optuna", "sqlalchemy", "pydantic", "pandas")),
        ("miras_search.training.job", ("torch", "ray", "optuna", "sqlalchemy", "pydantic")),
    ],
)
def test_imports_stay_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(name for name in {absent!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


FIRST = """
import sys
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.training.config import TrainConfig
from miras_search.training.job import Job
from miras_search.training.run import train

task = {"name": "mqar", "length": 16, "vocab": 16, "pairs": 2}
model, config = ModelConfig(layers=1, d_model=8, heads=1), TrainConfig(steps=1, batch=2)
train(Job(DesignPoint(), model, task, config, 1), device="cpu")
print(*(name for name in ("torch._dynamo", "sympy", "pandas") if name in sys.modules))
"""


def test_a_first_training_imports_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "a worker's start takes twice as long"
