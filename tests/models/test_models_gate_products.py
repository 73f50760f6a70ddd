"""A gate by key_value is a product of two factors: whatever multiplies it, or starts it, does so once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from miras_search.models.config import ModelConfig
from miras_search.models.inner_step import write_size
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain, SpecError
from miras_search.space.rules import violations

CONFIG = ModelConfig(layers=1, d_model=8, heads=2, value_dim=3)
TOKENS = torch.arange(10).view(1, 10)
DEEP: Plain = {"mlp": {"expansion": 1, "residual": False}}


def both(value: float, squash: str = "sigmoid", scale: float = 1.0, tie: str = "none") -> Plain:
    """A gate of key and value channels."""
    return {"source": "learned", "scope": "key_value", "value": value, "squash": squash, "scale": scale, "tie": tie}


def l2(keep: Plain, *, coupled: bool = False) -> Plain:
    return {"l2": {"keep": keep, "coupled": coupled}}


def model_of(spec: Plain) -> LanguageModel:
    model = LanguageModel(CONFIG, DesignPoint.parse(spec), 11).double()
    model.initialise(torch.Generator().manual_seed(0))
    return model


def hidden(spec: Plain, scale: float | None = None) -> Tensor:
    model = model_of(spec)
    if scale is not None:
        model.scale_steps(scale)
    return model.stream(TOKENS)[0]


@pytest.mark.parametrize("memory", ["matrix", DEEP], ids=["matrix", "mlp"])
@pytest.mark.parametrize(
    ("by_channel", "by_head"),
    [
        ({"step": both(0.3)}, {"step": 0.3}),
        ({"step": both(3.0, scale=2.0)}, {"step": 3.0}),
        ({"step": both(0.3, "softplus")}, {"step": 0.3}),
        ({"retention": l2(both(0.8))}, {"retention": l2(0.8)}),
        ({"retention": l2(both(0.8, "mamba"))}, {"retention": l2(0.8)}),
        ({"retention": l2(both(0.4, "rwkv"))}, {"retention": l2(0.4)}),
        ({"retention": l2(both(0.8, "mamba", tie="step")), "step": both(0.3)}, {"retention": l2(0.8), "step": 0.3}),
        ({"step": both(0.3), "control": "ascent"}, {"step": 0.3, "control": "ascent"}),
        ({"step": both(0.3), "algorithm": {"omega": {"window": 1, "share": 0.5}}}, {"step": 0.15}),
        ({"step": both(0.3), "retention": l2(0.8, coupled=True)}, {"step": 0.24, "retention": l2(0.8)}),
        ({"step": 0.3, "retention": l2(both(0.8), coupled=True)}, {"step": 0.24, "retention": l2(0.8)}),
        ({"step": both(0.3), "retention": l2(both(0.8), coupled=True)}, {"step": 0.24, "retention": l2(0.8)}),
        (
            {"step": 0.3, "retention": l2(both(0.8), coupled=True), "algorithm": "multi_step"},
            {"step": 0.3, "retention": l2(0.8, coupled=True), "algorithm": "multi_step"},
        ),
    ],
)  # fmt: skip
def test_a_product_starts_and_is_multiplied_as_one_number_a_head(
    by_channel: dict[str, Plain], by_head: dict[str, Plain], memory: Plain
) -> None:
    torch.testing.assert_close(hidden({**by_channel, "memory": memory}), hidden({**by_head, "memory": memory}))


def test_a_scaled_product_is_scaled_once() -> None:
    torch.testing.assert_close(hidden({"step": both(0.3)}, 2.0), hidden({"step": 0.6}))


def test_writes_of_a_product_have_the_size_of_the_number() -> None:
    found, expected = (write_size(model_of({"step": step}), TOKENS) for step in (both(0.3), 0.3))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scope", ["key", "value", "key_value"])
def test_a_fixed_step_has_no_channels_whatever_its_scope(scope: str) -> None:
    spec: Plain = {"step": {"source": "fixed", "value": 0.3, "scope": scope}}
    torch.testing.assert_close(hidden(spec), hidden({"step": 0.3}), rtol=0, atol=0)


def test_a_decay_by_the_step_needs_a_single_one() -> None:
    tied: Plain = l2({"squash": "mamba", "tie": "step"})
    point = DesignPoint.parse({"retention": tied, "algorithm": "multi_step"})
    assert [str(problem) for problem in violations(point, 4, 4)] == [
        "retention.keep.tie: a decay by the step needs a token's only one, and multi_step takes 2: set tie: none"
    ]
    assert not violations(DesignPoint.parse({"retention": tied}), 4, 4)


@pytest.mark.parametrize("bias", ["huber", "value_shift"])
@pytest.mark.parametrize("squash", ["mamba", "rwkv"])
def test_a_threshold_is_no_decay(bias: str, squash: str) -> None:
    with pytest.raises(SpecError, match=f"bias.{bias}.delta: {squash}'s decay"):
        DesignPoint.parse({"bias": {bias: {"delta": {"source": "data", "squash": squash, "value": 0.8}}}})


def test_a_scale_is_the_step_gates_and_leaves_what_an_algorithm_bounds() -> None:
    decayed: Plain = {"gradient_at": "decayed"}
    for algorithm in ("erase_write", "implicit"):
        given: dict[str, Plain] = {"algorithm": algorithm, "execution": decayed}
        torch.testing.assert_close(hidden({**given, "step": 0.3}, 2.0), hidden({**given, "step": 0.6}))
