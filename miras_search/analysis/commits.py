"""Which code made the stored trainings. Apart from the tables, which load numpy and scipy: `status` need not wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miras_search.store.types import AttemptRow, RunRow


def commits(attempts: Sequence[AttemptRow], runs: Sequence[RunRow]) -> str | None:
    """The short commits of the code that made these attempts; None where they are unknown."""
    used = {attempt.run_id for attempt in attempts}
    found = dict.fromkeys(commit_of(run.provenance) for run in runs if run.id in used)
    return " and ".join(commit for commit in found if commit) or None


def commit_of(provenance: Mapping[str, object]) -> str | None:
    """The code's commit in a run's provenance: seven digits, `+` behind them where files differed from it."""
    for place in ("package", "folder"):  # an installed package has no checkout: then the one that it was run in
        checkout = provenance.get(place)
        if isinstance(checkout, Mapping) and checkout.get("commit"):
            return str(checkout["commit"])[:7] + ("+" if checkout.get("dirty") else "")
    return None
