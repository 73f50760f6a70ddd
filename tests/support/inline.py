"""An executor that runs each task where it is submitted: what a worker does, with no time to start one."""

from __future__ import annotations

from collections.abc import Sequence

from miras_search.engine.messages import Message, Task
from miras_search.engine.task import run_task


class InlineExecutor:
    """One task at a time, in this process."""

    name = "inline"
    slots = 1

    def __init__(self, **asked: object) -> None:
        self._messages: list[Message] = []

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        self._send(run_task(ticket, task, self._send))

    def _send(self, messages: Sequence[Message]) -> bool:
        self._messages += messages
        return False

    def poll(self, timeout: float) -> list[Message]:
        found, self._messages = self._messages, []
        return found

    def stop(self) -> None:
        """Nothing runs between two calls."""

    def kill(self, ticket: int) -> None:
        """Nothing runs between two calls."""

    def close(self) -> None:
        """There is no process to end."""
