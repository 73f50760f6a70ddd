"""Negative controls: a design point with the thing it is about taken away or turned round.

A control changes what the memory is given, and leaves the model around it, so that parameters and budget stay those of
the point; the one that changes the model says so in `model`.

Every file of this folder is imported, so a new control is one new file: a frozen dataclass under `@CONTROL.register`.
"""

from __future__ import annotations

from miras_search.space.control.none import NoControl
from miras_search.space.control.protocol import CONTROL, Control, Inputs, Unchanged
from miras_search.space.siblings import load_siblings

__all__ = ["CONTROL", "Control", "Inputs", "NoControl", "Unchanged"]

load_siblings(__name__, __path__)
