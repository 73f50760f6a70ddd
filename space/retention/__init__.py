"""Retention gate, axis 3: how much of the old memory a write leaves standing. One file an option."""

from miras_search.space.retention.kl import KlRetention
from miras_search.space.retention.l2 import L2Retention, NoRetention
from miras_search.space.retention.protocol import RETENTION, Dual, Primal, Retention
from miras_search.space.siblings import load_siblings

load_siblings(__name__, __path__)

__all__ = ["RETENTION", "Dual", "KlRetention", "L2Retention", "NoRetention", "Primal", "Retention"]
