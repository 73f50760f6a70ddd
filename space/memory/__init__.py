"""Memory architecture, axis 1: the function whose weights store the associations. One file an option."""

from miras_search.space.memory.attention import Attention
from miras_search.space.memory.gated_mlp import GatedMlp
from miras_search.space.memory.matrix import Matrix
from miras_search.space.memory.mlp import Mlp
from miras_search.space.memory.protocol import MEMORY, Hidden, Layer, Lin, Memory, Network, Parameters, Static
from miras_search.space.memory.vector import Vector
from miras_search.space.siblings import load_siblings

load_siblings(__name__, __path__)

__all__ = [
    "MEMORY",
    "Attention",
    "GatedMlp",
    "Hidden",
    "Layer",
    "Lin",
    "Matrix",
    "Memory",
    "Mlp",
    "Network",
    "Parameters",
    "Static",
    "Vector",
]
