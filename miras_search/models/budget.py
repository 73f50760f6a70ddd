"""What a model costs, measured on the model itself: parameters, bytes carried from token to token, and work a token.

Comparing designs is only fair beside their costs, and formulas for costs are wrong the day an option is added. So the
state is counted on the pytree that a stream really carries, and the work on the operators that a forward pass really
runs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint

Shape = Sequence[int]


def parameters(model: LanguageModel) -> int:
    """Trained parameters; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@torch.no_grad()
def state_bytes(model: LanguageModel, tokens: int = 1) -> int | None:
    """Bytes of the tensors that one sequence carries on after so many tokens.

    Most states are of one size from the first token on; that of an attention grows. Counters, such as the position, are
    not counted. None for a layer of the user's own that does not stream, or whose state is no tree of tensors.
    """
    if not model.streams:
        return None
    _, states = model.stream(torch.zeros(1, tokens, dtype=torch.long, device=model.embedding.device))
    return tree_bytes(states)


def tree_bytes(tree: object) -> int | None:
    """Bytes of the tensors in tuples, lists, mappings and dataclasses; None where there may be others."""
    total = 0
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            total += leaf.numel() * leaf.element_size()
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            inner = tree_bytes([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])
            if inner is None:
                return None
            total += inner
        elif leaf is not None and not isinstance(leaf, bool | int | float | str):
            return None
    return total


def flops_per_token(model: LanguageModel, tokens: int) -> float:
    """Multiplications and additions a token of a forward pass over one sequence of so many tokens, the head at each.

    Counted are matrix products, attention, triangular and other linear solves, and factorisations, of the chunkwise
    form in plain torch on the CPU, whatever the model's device: the same number everywhere, of the way that runs and
    not of the definition. A link that holds every token counts less than chunks do, sweeps more, and a vector's
    coefficients are products too. Not counted is elementwise work: activations, norms, gates, the short convolution,
    links. A layer of the user's own is counted on the model's device, where it may need kernels that torch does not
    count.
    """
    device = "cpu" if model.design.mixer is None else str(model.embedding.device)
    return _flops(model.config, model.design, model.vocab_size, tokens, device) / tokens


@functools.lru_cache(maxsize=256)  # the seeds of a cell cost the same, and counting takes up to seconds
def _flops(config: ModelConfig, design: DesignPoint, vocab_size: int, tokens: int, device: str) -> int:
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model = LanguageModel(config, design, vocab_size).requires_grad_(False)
    model.initialise(torch.Generator().manual_seed(0))
    model.eval().to(device)
    counter = Counter()
    with torch.no_grad(), counter:
        hidden, _ = model.stream(torch.zeros(1, tokens, dtype=torch.long, device=device))
        model.logits(hidden)
    return counter.total


# Formulas take the shapes of an operator's tensors in place of these.


def _triangular(
    a: Shape, b: Shape, *, upper: bool, left: bool = True, unitriangular: bool = False, out_shape: Shape
) -> int:
    """Each of the n rows of a right-hand side takes up to n - 1 others in, and is divided unless the diagonal is 1."""
    return math.prod(out_shape) * (a[-1] - unitriangular)


def _matrix_vector(a: Shape, x: Shape, *, out_shape: Shape) -> int:
    return 2 * math.prod(a)


def _added_matrix_vector(y: Shape, a: Shape, x: Shape, *, out_shape: Shape, **scales: float) -> int:
    return 2 * math.prod(a)


def _added_product(y: Shape, a: Shape, b: Shape, *, out_shape: Shape, **scales: float) -> int:
    """In place, [.., n, k] times [.., k, m]."""
    return 2 * math.prod(a) * b[-1]


def _dot(x: Shape, y: Shape, *, out_shape: Shape) -> int:
    return 2 * math.prod(x)


def _cholesky(a: Shape, *, out_shape: object, **settings: object) -> int:
    return math.prod(a) * a[-1] // 3


def _after_cholesky(b: Shape, a: Shape, upper: bool = False, *, out_shape: Shape) -> int:
    """Two triangular solves."""
    return 2 * math.prod(out_shape) * a[-1]


def _solve(a: Shape, b: Shape, *, out_shape: object, **settings: object) -> int:
    """A factorisation and two triangular solves; b [.., n] is a vector a matrix, or [.., n, m] m of them."""
    return 2 * math.prod(a) * a[-1] // 3 + 2 * math.prod(b) * a[-1]


def _inverse(a: Shape, *, out_shape: object, **settings: object) -> int:
    return 2 * math.prod(a) * a[-1]


aten = torch.ops.aten
FORMULAS: dict[object, Callable[..., int]] = {
    aten.linalg_solve_triangular: _triangular,
    aten.mv: _matrix_vector,
    aten.addmv: _added_matrix_vector,
    aten.addmm_: _added_product,
    aten.baddbmm_: _added_product,
    aten.dot: _dot,
    aten.linalg_cholesky_ex: _cholesky,
    aten.cholesky_solve: _after_cholesky,
    aten._linalg_solve_ex: _solve,
    aten.linalg_inv_ex: _inverse,
}
"""What torch's own counter leaves out and a memory may use."""


class Counter(TorchDispatchMode):
    """Adds up the work of the operators that run, by torch's formulas and those above.

    Torch's own counter would import the compiler at the first operator: as long as the rest of a worker's start.
    """

    formulas: ClassVar = FlopCounterMode(display=False, custom_mapping=FORMULAS).flop_registry

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what would import it

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator, and count it if it has a formula."""
        out = func(*args, **(kwargs or {}))
        formula = self.formulas.get(getattr(func, "overloadpacket", None))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out
