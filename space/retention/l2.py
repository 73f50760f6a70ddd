"""Retention by the squared distance: none, or weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from miras_search.space.fields import setting
from miras_search.space.gates import KEEP, Gate, fixed
from miras_search.space.retention.protocol import RETENTION, Dual, Retention, check_keep


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class NoRetention(Dual):
    """Nothing is let go but what a write replaces."""

    name: ClassVar[str] = "none"
    equation: ClassVar[str] = "Z_t = Z_{t-1} - e_t g_t;  W = Z"
    source: ClassVar[str] = "Miras, Eq. 5"
    objective: ClassVar[str] = "<W - W', g> + 1/(2e) |W - W'|^2"

    @property
    def identity(self) -> bool:
        """It is."""
        return True

    @property
    def keep(self) -> Gate:
        """The constant 1."""
        return fixed(1.0)

    def canonical(self) -> Retention:
        """Itself."""
        return self


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class L2Retention(Dual):
    """Weight decay of the memory: every token fades the past by its keep gate."""

    name: ClassVar[str] = "l2"
    equation: ClassVar[str] = "Z_t = a_t Z_{t-1} - e_t g_t;  W = Z;  coupled: e_t -> a_t e_t"
    source: ClassVar[str] = "Miras, section 5.3 (Yaad's gate); Titans, Eq. 13"
    objective: ClassVar[str] = "<W - W', g> + 1/(2e) |W - W'|^2 + 1/(2b) |W|^2, so a = b/(b+e) and the step is a e"
    keep: Gate = setting(KEEP, "the share of the old memory that stays")
    coupled: bool = setting(False, "one objective with a local and a global term: the step is a e; else both are free")

    def __post_init__(self) -> None:
        check_keep(self.keep)

    @property
    def identity(self) -> bool:
        """It is."""
        return True

    def canonical(self) -> Retention:
        """No retention when everything is kept."""
        return NoRetention() if self.keep.is_one else self
