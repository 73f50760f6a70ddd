"""What several presets share."""

from __future__ import annotations

from typing import Any

DEEP: dict[str, Any] = {"mlp": {"depth": 2, "expansion": 4, "activation": "gelu", "residual": True, "norm": "layer"}}
"""The memory of Titans and Miras: x + LN(gelu(x W_0) W_1)."""

FROZEN: dict[str, Any] = {"chunk": 16, "gradient": "frozen", "gradient_at": "previous"}
"""Gradients of a chunk at its start, as Titans and Miras train."""
