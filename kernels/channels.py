"""Gates by channel: which axis of which layer a gate acts on.

A key gate has a value for every row of the layers that read keys, a value gate for every column of the layers that
write values, a key_value gate is the product of both. A layer without that axis (the second of a two-layer memory has
no key rows) takes the mean over the channels, of logarithms for a decay, so that every layer fades. In a diagonal layer
both kinds act on its columns.

A coupled step a e is multiplied channel by channel first. In a layer without the axis it is therefore the mean of the
products, beside the geometric mean of a as keep: near a e there, but not one objective's.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from miras_search.space.gates import Scope
from miras_search.space.memory import Layer


class Parts(NamedTuple):
    """A gate as factors: of a whole layer [..], of its rows [..,rows], its columns [..,cols]. None: there is none."""

    whole: Tensor | None = None
    rows: Tensor | None = None
    cols: Tensor | None = None


def parts(gate: Tensor, scope: Scope, layer: Layer, keys: int, *, log: bool) -> Parts:
    """The factors of a gate, [..] for a head or [..,C] by channel, in a layer of a memory with `keys` key channels.

    `log`: the gate and its factors are logarithms, so that factors add.
    """
    if scope == "head":
        return Parts(whole=gate)
    if scope == "key_value":
        on_keys = parts(gate[..., :keys], "key", layer, keys, log=log)
        on_values = parts(gate[..., keys:], "value", layer, keys, log=log)
        return Parts(*(_product(x, y, log=log) for x, y in zip(on_keys, on_values, strict=True)))
    if layer.diagonal:
        return Parts(cols=gate)
    if scope == "key" and layer.keyed:
        return Parts(rows=gate)
    if scope == "value" and layer.valued:
        return Parts(cols=gate)
    return Parts(whole=gate.mean(-1))


def over_layer(gate: Tensor, scope: Scope, layer: Layer, keys: int, *, log: bool) -> Tensor:
    """The gate as one tensor that broadcasts over the layer's weights [..,rows,cols]."""
    found = parts(gate, scope, layer, keys, log=log)
    whole = None if found.whole is None else found.whole[..., None, None]
    rows = None if found.rows is None else found.rows.unsqueeze(-1)
    cols = None if found.cols is None else found.cols.unsqueeze(-2)
    product = _product(_product(whole, rows, log=log), cols, log=log)
    assert product is not None
    return product


def _product(x: Tensor | None, y: Tensor | None, *, log: bool) -> Tensor | None:
    if x is None or y is None:
        return y if x is None else x
    return x + y if log else x * y
