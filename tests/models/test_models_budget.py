"""Budgets: parameters and state by hand; work by hand, by another counter, and operator by operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from miras_search.bench.training import Products
from miras_search.models import budget
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.presets import PRESETS, preset

VOCAB = 11
REFINED = {"preset": "delta_net", "execution": {"gradient": {"refined": 2}, "chunk": 4}}
SMALL = ModelConfig(layers=2, d_model=8, heads=2)


def model_of(design: object, config: ModelConfig = SMALL, dtype: torch.dtype = torch.float32) -> LanguageModel:
    model = LanguageModel(config, DesignPoint.parse(design), VOCAB)
    model.initialise(torch.Generator().manual_seed(1))
    return model.to(dtype)


def test_parameters_by_hand() -> None:
    config = ModelConfig(layers=3, d_model=8, heads=2, key_dim=3, value_dim=5, conv=4, feed_forward="swiglu")
    model = model_of({"retention": {"l2": {"keep": {"squash": "mamba"}}}}, config)
    qkv = 2 * 3 + 2 * 3 + 2 * 5
    projections = 8 * (qkv + 2 * 5 + 2 + 2)  # output gate; step and keep, one a head
    gates = 2 + 2 + 2  # two biases, mamba's rate
    mixer = projections + 4 * qkv + gates + 2 * 3 * 5 + 5 + 2 * 5 * 8  # convolution, start, norm, output
    feed_forward = 8 * 2 * 16 + 16 * 8
    assert budget.parameters(model) == 3 * (mixer + 8 + feed_forward + 8) + 2 * VOCAB * 8 + 8
    model.embedding.requires_grad_(False)
    assert budget.parameters(model) == 3 * (mixer + 8 + feed_forward + 8) + VOCAB * 8 + 8


def test_a_tied_head_counts_once() -> None:
    tied = ModelConfig(layers=3, d_model=8, heads=2, tie_embeddings=True)
    untied = ModelConfig(layers=3, d_model=8, heads=2)
    counts = [budget.parameters(model_of("delta_net", config)) for config in (tied, untied)]
    assert counts[1] - counts[0] == VOCAB * 8


def test_state_bytes_by_hand() -> None:
    config = ModelConfig(layers=2, d_model=8, heads=2, key_dim=3, value_dim=5, conv=4)
    convolution = 3 * (2 * 3 + 2 * 3 + 2 * 5)
    assert budget.state_bytes(model_of("delta_net", config)) == 4 * 2 * (convolution + 2 * 3 * 5)

    config = ModelConfig(layers=3, d_model=8, heads=2, conv=0)
    weights = 2 * (4 * 16 + 16 * 4)  # heads times both layers of a memory of expansion 4
    titans = model_of("titans_lmm", config)
    assert budget.state_bytes(titans) == 4 * 3 * 3 * weights  # accumulator, momentum, start of the chunk

    refined = model_of(REFINED, ModelConfig(layers=1, d_model=8, heads=2, conv=0), torch.float64)
    assert budget.state_bytes(refined) == 8 * 2 * 4 * 4 * (1 + 1 + 2)  # start and two levels of the tower


def test_state_bytes_of_wider_keys_and_of_a_normaliser() -> None:
    linear = {"feature_map": "relu", "conv": 0, "layers": 1, "d_model": 8, "heads": 2}
    sizes = []
    for settings in ({}, {"feature_map": "dpfp"}, {"normaliser": "sum"}):
        model = model_of("linear_attention", ModelConfig(**{**linear, **settings}))
        sizes.append(budget.state_bytes(model))
    assert sizes == [4 * 2 * 4 * 4, 4 * 2 * 24 * 4, 4 * 2 * 4 * 5]


@pytest.mark.parametrize("name", [name for name in sorted(PRESETS) if not preset(name).memory.is_kernel])
def test_the_state_is_of_one_size_from_the_first_token_on(name: str) -> None:
    model = model_of(name)
    assert budget.state_bytes(model) == budget.state_bytes(model, 5) == budget.state_bytes(model, 40)


def test_work_of_linear_attention_by_hand() -> None:
    tokens, keys, values, heads, width = 16, 4, 6, 2, 8
    config = ModelConfig(layers=3, d_model=width, heads=heads, key_dim=keys, value_dim=values, feed_forward="swiglu")
    model = model_of({"preset": "linear_attention"}, config)
    inner = heads * (2 * keys + values)
    projections = 2 * width * (inner + heads * values) + 2 * heads * values * width
    feed_forward = 2 * width * 2 * 16 + 2 * 16 * width
    # a chunk of all 16 tokens, a head: reads of the start and of each other, and what is written at the end
    memory = heads * 2 * (keys * values + tokens * keys + tokens * values + keys * values)
    head = 2 * width * VOCAB
    assert budget.flops_per_token(model, tokens) == 3 * (projections + feed_forward + memory) + head


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_work_is_what_another_counter_finds(name: str) -> None:
    model, tokens = model_of(name), 24
    with torch.no_grad(), Products() as products:
        model.logits(model.stream(torch.zeros(1, tokens, dtype=torch.long))[0])
    found = budget.flops_per_token(model, tokens) * tokens
    solves = 0  # one a chunk, a head and a layer where the signal is linear in the prediction
    design = model.design
    if design.algorithm.name == "newton":  # one a token, a head and a layer: LU and two triangular ones
        solves = 2 * 2 * tokens * (2 * 4**3 + 3 * 2 * 4**2) // 3
    elif design.descends and design.memory.bare and design.bias.slope and design.execution.gradient.sweeps is None:
        writes = design.algorithm.writes
        size = 16 // writes * writes
        plain = not design.algorithm.splits_keys and set(design.scopes.values()) == {"head"}
        for n in [size] * (tokens * writes // size) + [tokens * writes % size]:
            columns = n if plain else model.config.values  # of an inverse, or of the signals themselves
            solves += 2 * 2 * n * (n - 1) * columns if n else 0
    assert found == products.flop + solves


def test_counting_leaves_nothing_behind() -> None:
    torch.manual_seed(5)
    before, model = torch.get_rng_state(), model_of("yaad")
    torch.set_rng_state(before)
    assert budget.flops_per_token(model, 7) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_deeper_memory_works_more() -> None:
    deep, matrix = (budget.flops_per_token(model_of(name), 32) for name in ("titans_lmm", "gated_delta_net"))
    assert deep > 2 * matrix


A, B = torch.eye(5).expand(3, 5, 5) * 2, torch.ones(3, 5, 2)
OPERATORS: dict[str, tuple[Callable[[], object], int]] = {
    "mm": (lambda: A[0] @ B[0], 2 * 5 * 5 * 2),
    "bmm": (lambda: A @ B, 3 * 2 * 5 * 5 * 2),
    "baddbmm": (lambda: torch.baddbmm(B, A, B), 3 * 2 * 5 * 5 * 2),
    "baddbmm_": (lambda: B.clone().baddbmm_(A, B), 3 * 2 * 5 * 5 * 2),
    "addmm_": (lambda: B[0].clone().addmm_(A[0], B[0]), 2 * 5 * 5 * 2),
    "bmm into": (lambda: torch.bmm(A, B, out=torch.empty_like(B)), 3 * 2 * 5 * 5 * 2),
    "solve": (lambda: torch.linalg.solve_triangular(A, B, upper=False), 3 * 2 * 25),
    "unit solve": (lambda: torch.linalg.solve_triangular(A, B, upper=True, unitriangular=True), 3 * 2 * 5 * 4),
    "right solve": (lambda: torch.linalg.solve_triangular(A, B.mT, upper=True, left=False), 3 * 2 * 25),
    "mv": (lambda: A[0] @ B[0, :, 0], 2 * 25),
    "addmv": (lambda: torch.addmv(B[0, :, 0], A[0], B[0, :, 0]), 2 * 25),
    "dot": (lambda: B[0, :, 0] @ B[0, :, 1], 2 * 5),
    "cholesky": (lambda: torch.linalg.cholesky(A), 3 * 125 // 3),
    "cholesky_solve": (lambda: torch.cholesky_solve(B, A), 3 * 2 * 2 * 25),
    "general solve": (lambda: torch.linalg.solve(A, B), 3 * 250 // 3 + 3 * 2 * 2 * 25),
    "vector solve": (lambda: torch.linalg.solve(A, B[..., 0]), 3 * 250 // 3 + 3 * 2 * 25),
    "inverse": (lambda: torch.linalg.inv(A), 3 * 250),
    "elementwise": (lambda: A * A + A, 0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_counted(name: str) -> None:
    run, expected = OPERATORS[name]
    with FlopCounterMode(display=False, custom_mapping=budget.FORMULAS) as torchs:
        assert isinstance(run(), Tensor)
    with budget.Counter() as counter:
        assert isinstance(run(), Tensor)
    assert counter.total == torchs.get_total_flops() == expected
