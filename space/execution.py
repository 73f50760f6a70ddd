"""Execution: where inside a chunk gradients are taken. This is semantics, not speed, so it is part of a design point.

Token by token, refined(n) is a tower of n+1 states: u^(0) is predicted from the state at the chunk's start, u^(m) from
level m-1 just before the token; all levels are reset to the last at the chunk's end. Frozen, the paper's parallel form,
is refined(0). Exact is the recurrence itself and needs no chunks. A lag token, the first of its chunk, takes one step
of the recurrence itself: the rest of the chunk starts from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, final

from miras_search.space.fields import Path, Plain, SpecError, build, nearest, require, setting


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Gradient:
    """At which weights a token's gradient is taken: exact, frozen (chunk start), or refined by n sweeps."""

    sweeps: int | None = None  # None: exact; 0: frozen; n: refined

    @classmethod
    def from_plain(cls, data: object, where: Path, default: object = None) -> Gradient:
        """`exact`, `frozen`, or `{refined: n}`."""
        if data == "exact":
            return cls()
        if data == "frozen":
            return cls(0)
        if isinstance(data, Mapping) and list(data) == ["refined"]:
            n = data["refined"]
            if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 64:
                return cls(n)
            raise SpecError.at((*where, "refined"), f"{n!r} is not a number of sweeps between 1 and 64")
        word = data if isinstance(data, str) else next(iter(data), "") if isinstance(data, Mapping) else repr(data)
        near = "" if word == "refined" else nearest(str(word), ["exact", "frozen", "refined"])
        raise SpecError.at(where, f"unknown gradient mode '{word}'{near}: write exact, frozen or {{refined: n}}")

    def to_plain(self) -> Plain:
        """The YAML form."""
        return {None: "exact", 0: "frozen"}.get(self.sweeps) or {"refined": self.sweeps}

    def __str__(self) -> str:
        return {None: "exact", 0: "frozen"}.get(self.sweeps) or f"refined({self.sweeps})"


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """How a design point runs over time."""

    chunk: int = setting(
        16, "tokens between refreshes of the start state (frozen, refined, link_refresh: chunk or lag)"
    )
    gradient: Gradient = setting(Gradient(), "exact, frozen, or {refined: n}")
    gradient_at: Literal["previous", "decayed"] = setting(
        "previous", "gradient at the old memory, or at the old memory after keep has faded it"
    )
    link_refresh: Literal["token", "chunk", "lag"] = setting(
        "token",
        "apply a dual gate's link at every token, or treat it as the identity inside a chunk: in all of it (chunk), or "
        "after one true step of its first token (lag: Memora's lag token)",
    )

    def __post_init__(self) -> None:
        require(1 <= self.chunk <= 4096, "chunk", f"{self.chunk} is not between 1 and 4096")

    @classmethod
    def from_plain(cls, data: object, where: Path, default: object = None) -> Execution:
        """Execution from settings that refine the defaults."""
        return build(cls, data, where)

    def to_plain(self) -> dict[str, Plain]:
        """The YAML form."""
        return {
            "chunk": self.chunk,
            "gradient": self.gradient.to_plain(),
            "gradient_at": self.gradient_at,
            "link_refresh": self.link_refresh,
        }

    def __str__(self) -> str:
        parts = [str(self.gradient), f"chunk {self.chunk}", self.gradient_at]
        how = {"chunk": ["link refreshed per chunk"], "lag": ["link refreshed per chunk, after a lag token"]}
        return ", ".join([*parts, *how.get(self.link_refresh, [])])
