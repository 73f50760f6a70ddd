"""A module with a bias of the user's own, as text: workers run it without having the file."""

from __future__ import annotations

MODULE = """\
from dataclasses import dataclass
from miras_search.space.bias import BIAS


@BIAS.register
@dataclass(frozen=True, slots=True)
class Own:
    '''A bias of the user.'''
    name = "own"
    equation = "u = r"

    def signal(self, p, v, threshold):
        return p - v
"""
