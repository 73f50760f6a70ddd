"""Products of small matrices as the compiler's own loops.

A library's product of 16 by 16 matrices is no faster than a plain loop over vectors of 16 numbers, and costs a call, a
copy of what is added to it, and the fusion of what stands before and after it. From 32 on it is two to three times as
fast as the loop.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
LARGEST = 16  # rows, columns and terms of a product that becomes a loop


def as_loops(graph: GraphModule) -> None:
    """Write every batch of small products in a recorded graph as sums of products, in place."""
    for node in graph.graph.nodes:
        if node.target in (aten.bmm.default, aten.baddbmm.default) and not node.kwargs and _pays(*node.args[-2:]):
            with graph.graph.inserting_before(node):
                _replace(graph, node)
    graph.recompile()


def _pays(left: Node, right: Node) -> bool:
    """Small, and the right matrix in rows: the loop takes vectors of them."""
    one, other = _value(left), _value(right)
    small = max(*one.shape[1:], *other.shape[1:]) <= LARGEST
    return small and other.stride(-1) == 1 and one.dtype == torch.float32


def _replace(graph: GraphModule, node: Node) -> None:
    *added, left, right = node.args
    terms = graph.graph.call_function(aten.unsqueeze.default, (left, -1))
    rows = graph.graph.call_function(aten.unsqueeze.default, (right, -3))
    products = graph.graph.call_function(aten.mul.Tensor, (terms, rows))
    found = graph.graph.call_function(aten.sum.dim_IntList, (products, [-2]))
    if added:
        found = graph.graph.call_function(aten.add.Tensor, (added[0], found))
    found.meta.update(node.meta)  # a later product asks for its layout
    node.replace_all_uses_with(found)
    graph.graph.erase_node(node)


def _value(node: Node) -> Tensor:
    """The shape, layout and dtype that a node had when it was recorded."""
    value: Tensor = node.meta["val"]
    return value
