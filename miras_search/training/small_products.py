"""Products of small matrices as the compiler's own loops.

A library's product of 16 by 16 matrices is no faster than a plain loop over vectors of 16 numbers, and costs a call, a
copy of what is added to it, and the fusion of what stands before and after it. From 32 on it is two to three times as
fast as the loop.

What such a loop multiplies is laid down before it: computed where it is read, a masked or scaled matrix is computed
again for every row or column of the other one.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
LARGEST = 16  # rows, columns and terms of a product that becomes a loop


def as_loops(graph: GraphModule) -> None:
    """Write every batch of small products in a recorded graph as sums of products, in place."""
    for node in graph.graph.nodes:
        if node.target in (aten.bmm.default, aten.baddbmm.default) and not node.kwargs and _pays(*node.args[-2:]):
            for operand in node.args[-2:]:
                _lay_down(graph, _computed(operand))
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


def _computed(node: Node) -> Node:
    """What a node is a view of."""
    while node.target in (operator.getitem, aten.reshape.default) or getattr(node.target, "is_view", False):
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def _lay_down(graph: GraphModule, node: Node) -> None:
    """Make the result of an elementwise operator a matrix in memory, which a compiler leaves out where it can."""
    elementwise = torch.Tag.pointwise in getattr(node.target, "tags", ()) and not node.target._schema.is_mutable
    if not elementwise or any(map(_is_strided, node.users)):
        return
    value = _value(node)
    with graph.graph.inserting_after(node):
        kept = graph.graph.call_function(aten.as_strided.default, (node, value.shape, value.stride(), 0))
    kept.meta.update(node.meta)
    node.replace_all_uses_with(kept, delete_user_cb=lambda user: user is not kept)


def _is_strided(node: Node) -> bool:
    return node.target is aten.as_strided.default


def _value(node: Node) -> Tensor:
    """The shape, layout and dtype that a node had when it was recorded."""
    value: Tensor = node.meta["val"]
    return value
