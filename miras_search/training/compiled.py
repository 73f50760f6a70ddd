"""A step's losses and gradients as one function that torch's compiler makes: machine code instead of operators.

On a CPU a step of a small model is a thousand operators, and most of its time goes into reading and writing what the
next one reads again. The compiler fuses all that is no product. It needs the step as a graph, which is recorded by
running it once on shapes alone, backward passes by hand included.

Making one takes half a minute the first time on a machine, seconds from the compiler's cache on disk, and nothing for
a next training of the same shape in this process: numbers, learning rates and seeds are inputs.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from miras_search import compiler
from miras_search.errors import EnvironmentProblem
from miras_search.kernels import dispatch
from miras_search.kernels.recording import recording
from miras_search.training.small_products import as_loops

log = logging.getLogger(__name__)
NAME = "torch.compile"
KEPT = 32  # graphs in a process: a worker meets every cell of a study, seed after seed
MOST = 5000  # operators of a graph: the compiler's time grows with them, to three minutes for so many

Descent = Callable[..., tuple[Tensor | None, ...]]
"""Losses and gradients of tensors: a function that looks at no value, draws nothing and changes none of its inputs."""


_graphs: OrderedDict[tuple[str, int], Descent | None] = OrderedDict()
"""Compiled functions by shape and threads, the latest last; None where there is none, which is not tried again."""


def compiled(shape: str, function: Descent) -> Descent:
    """`function` compiled at its first call; as it is, with a line in the log, where it cannot be.

    `shape` says all that the graph depends on but the threads: functions of one shape share it. Raises
    `EnvironmentProblem` where there is no compiler.
    """

    def run(*inputs: Tensor) -> tuple[Tensor | None, ...]:
        key = shape, torch.get_num_threads()
        if key not in _graphs:
            _graphs[key] = _made(function, inputs)
            if len(_graphs) > KEPT:
                _graphs.popitem(last=False)
        _graphs.move_to_end(key)
        made = _graphs[key]
        if made is None:
            return function(*inputs)
        dispatch.noted(NAME)
        with torch.no_grad():
            return made(*inputs)

    return run


def _made(function: Descent, inputs: tuple[Tensor, ...]) -> Descent | None:
    """A compiled function for inputs like these."""
    if devices := {x.device.type for x in inputs} - {"cpu"}:
        raise EnvironmentProblem(f"resources.kernels: compiled is code for a CPU, not for {min(devices)}: take auto")
    compiler.check()
    options = {
        "cpp_wrapper": True,  # the calls between the loops are code as well
        "cpp.threads": torch.get_num_threads(),  # else the cache on disk does not know them
        "cpp.enable_floating_point_contract_flag": "fast",  # multiply and add in one instruction
        "realize_reads_threshold": 2,  # what is used twice is kept: computed anew, it is read through masks
    }
    try:
        graph = traced(function, *inputs)
        with _quiet(), torch.no_grad():
            made: Descent = torch._inductor.compile(graph, list(inputs), options=options)
            made(*inputs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a design's code or the compiler stumbles over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("not compiled (%s): the operators run one by one", reason)
        return None
    return made


class _AtMost(TorchDispatchMode):
    """Raises after so many operators: to record a graph that is not compiled would take as long as a training."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._most, self._count = most, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._count += func.namespace != "prim"  # asking for a device is no operator
        if self._count > self._most:
            raise ValueError(f"more than {self._most} operators would take the compiler too long")
        return func(*args, **(kwargs or {}))


def traced(function: Descent, *inputs: Tensor) -> torch.fx.GraphModule:
    """The operators that `function` runs for inputs of these shapes, small products as loops.

    Raises ValueError for more than `MOST`, and what torch raises for a function that looks at values.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def limited(*inputs: Tensor) -> tuple[Tensor | None, ...]:
        with _AtMost(MOST):
            return function(*inputs)

    with dispatch.allowed("torch"), recording():
        graph: torch.fx.GraphModule = make_fx(limited, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    # the compiler makes operators without `out=` of those with it, and their results have another order in memory
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    as_loops(graph)
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the compiler's remarks on operators that it calls the long way, and on itself."""
    inductor = logging.getLogger("torch._inductor")
    before = inductor.level
    inductor.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        inductor.setLevel(before)
