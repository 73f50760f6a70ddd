"""What a signal means to a run: the first asks it to end in order, a second interrupt ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

ORDERLY = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGTERM is how a batch system announces the end, SIGHUP a closed terminal


class Signals:
    """Catches the signals while the context is open; only in the main thread, where Python delivers them."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, object] = {}

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

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what getsignal gave
