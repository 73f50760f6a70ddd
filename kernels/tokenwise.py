"""The Triton kernels that go token by token, as dispatch asks for them: the loop, and the decode step of streaming.

Nothing here imports triton before a point may run on it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miras_search.kernels.state import Layers, State, initial_state
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static


def loop_refuses(point: DesignPoint, device: str, dtype: torch.dtype, key_dim: int, value_dim: int) -> str | None:
    """The reason that the loop cannot run a point, or None when it can."""
    if device != "cuda":
        return f"Triton compiles for GPUs; the device is {device}"
    try:
        from miras_search.kernels.triton.loop_run import loop_refuses as refuses
    except ImportError as error:
        return f"Triton cannot be imported: {error}"
    return refuses(point, key_dim, value_dim, dtype)


def run_loop(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs and final state by the loop, of a point that `loop_refuses` lets pass."""
    from miras_search.kernels.triton.loop_run import run_loop as run

    return run(point, inputs, start, static, state)


def decodes(point: DesignPoint, inputs: Inputs) -> bool:
    """Whether these inputs are a single token, without gradients and on a GPU, that the decode kernel can make."""
    if inputs.q.shape[1] != 1 or torch.is_grad_enabled() or inputs.q.device.type != "cuda":
        return False
    try:
        from miras_search.kernels.triton.decode_run import decode_refuses
    except ImportError:
        return False
    return decode_refuses(point, inputs.q.shape[-1], inputs.v.shape[-1], inputs.q.dtype) is None


def decode(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Output and state of one token that `decodes` lets pass; as `recurrence.run`, argument for argument."""
    from miras_search.kernels.triton.decode_run import decode as step

    if state is None:
        state = initial_state(point, inputs, start, static)
    return step(point, inputs, static, state)
