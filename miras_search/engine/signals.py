"""What a signal means to a run: the first asks it to end in order, a second interrupt ends it at once.

Two stages differ. While workers are being started nothing is at stake and it can take long, so the first signal already
ends that; while they are being ended a further one is only noted, for Ray left half closed takes the process with it.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

ORDERLY = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGTERM is how a batch system announces the end, SIGHUP a closed terminal
HOLD_SECONDS = 10.0  # a user who still interrupts after that wants out at any price


class Signals:
    """Catches the signals while the context is open; only in the main thread, where Python delivers them."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, object] = {}
        self._prompt = False
        self._held = -math.inf  # since when, by the monotonic clock

    def install(self) -> None:
        """Take the signals over; again after a library (Ray) has put its own handlers in place."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ORDERLY:
            number = getattr(signal, name, None)
            if number is None:
                continue
            current = signal.getsignal(number)
            if current is signal.SIG_IGN:  # `nohup` and `command &` mean it
                continue
            self._before.setdefault(number, current)
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def prompt(self) -> Iterator[None]:
        """While open, any signal raises KeyboardInterrupt where it falls: for what writes no rows and may take long."""
        self._prompt = True
        try:
            if self.received is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._prompt = False

    def hold(self) -> None:
        """The run is ending: for a while no signal disturbs that."""
        self._held = time.monotonic()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number).name
        if time.monotonic() - self._held < HOLD_SECONDS:
            return
        if self._prompt or (again and number == signal.SIGINT):
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what getsignal gave
