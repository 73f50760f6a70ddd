"""Keeping the study's lease alive from a thread of its own, so that a slow step of the driver does not lose it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from miras_search.errors import MirasError
from miras_search.store.types import LeaseLost
from miras_search.store.writer import Writer

BEAT_SECONDS = 5.0  # a run counts as dead after a minute without a beat


class Heartbeat:
    """Beats while the context is open. `check` raises what a beat has raised: the driver must stop then."""

    def __init__(self, writer: Writer, run_id: int, seconds: float = BEAT_SECONDS) -> None:
        self._writer, self._run_id, self._seconds = writer, run_id, seconds
        self._stop = threading.Event()
        self._error: MirasError | None = None
        self._thread = threading.Thread(target=self._beat, name="miras-search heartbeat", daemon=True)

    def check(self) -> None:
        """Raises LeaseLost when another run has taken the study over."""
        if self._error is not None:
            raise self._error

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._writer.heartbeat(self._run_id)
            except LeaseLost as error:
                self._error = error
                return
            except MirasError:  # the database is busy or away: the next beat, or the driver's next row, will tell
                continue

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
