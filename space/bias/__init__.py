"""Attentional bias, axis 2: the inner loss whose minimiser the memory approaches. One option, one file.

A bias gives, for a prediction p = M(k) and a target v, the loss l(p, v) and its signal u = dl/dp, from which every
memory gradient is back-propagated. Residual r = p - v. Row vectors; `p, v [..., V]`; thresholds `[..., 1]`, or
`[..., V]` where the bias allows one for each channel, or None. Equations are those of arXiv 2504.13173 with the
corrections the docstrings name.

Every file of this folder is imported, so a new option is one new file: a frozen dataclass under `@BIAS.register`.
"""

from __future__ import annotations

from miras_search.space.bias.dot import Dot
from miras_search.space.bias.huber import Huber
from miras_search.space.bias.kl import Kl
from miras_search.space.bias.l1 import L1
from miras_search.space.bias.l2 import L2
from miras_search.space.bias.logcosh import LogCosh
from miras_search.space.bias.lp import Lp
from miras_search.space.bias.protocol import BIAS, EPS, Bias, safe_norm
from miras_search.space.bias.value_shift import ValueShift
from miras_search.space.siblings import load_siblings

__all__ = ["BIAS", "EPS", "L1", "L2", "Bias", "Dot", "Huber", "Kl", "LogCosh", "Lp", "ValueShift", "safe_norm"]

load_siblings(__name__, __path__)
