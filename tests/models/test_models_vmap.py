"""Many models in one process: gradients by vmap over stacked parameters equal a loop over the models."""

from __future__ import annotations

import pytest
import torch
from stacked import stacked_equals_a_loop

from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint

VOCAB, MODELS, LENGTH = 7, 3, 9
DESIGNS: dict[str, object] = {
    "delta_net refined": {"preset": "delta_net", "execution": {"gradient": {"refined": 2}, "chunk": 4}},
    "delta_net": "delta_net",
    "yaad": {"preset": "yaad", "execution": {"chunk": 4}},
    "delta_product": "delta_product",
    "memora": {"preset": "memora", "execution": {"chunk": 4}},
    "titans_lmm": {"preset": "titans_lmm", "execution": {"chunk": 4}},
    "huber coordinate": {"bias": {"huber": {"form": "coordinate"}}, "retention": "kl"},
}


@pytest.mark.parametrize("name", DESIGNS)
def test_stacked_gradients_equal_a_loop(name: str) -> None:
    design = DesignPoint.parse(DESIGNS[name])
    config = ModelConfig(layers=2, d_model=6, heads=2, feed_forward="swiglu")
    models = [LanguageModel(config, design, VOCAB) for _ in range(MODELS)]
    for seed, model in enumerate(models):
        model.initialise(torch.Generator().manual_seed(seed))
        model.double()
    generator = torch.Generator().manual_seed(9)
    tokens = torch.randint(VOCAB, (MODELS, 2, LENGTH), generator=generator)
    positions = torch.tensor([[2, 8], [5, 7]]).expand(MODELS, 2, 2)
    labels = torch.randint(VOCAB, (MODELS, 2, 2), generator=generator)

    losses, _ = stacked_equals_a_loop(models, tokens, positions, labels)
    assert not torch.isclose(losses[0], losses[1])
