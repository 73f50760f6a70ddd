"""What runs inside Ray: the task that trains a job, and the mailbox through which its points reach the driver.

In a module of its own, so that Ray pickles both by name: no object of the driver (least of all Optuna's, which opens
the database where it is unpickled) can travel with them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import ray
from ray.actor import ActorHandle

from miras_search.engine.messages import Failed, Finished, Message, Stopped, Task
from miras_search.engine.task import run_task

End = Finished | Stopped


class Mailbox:
    """An actor that keeps messages until the driver fetches them."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._stopping = False

    def put(self, messages: Sequence[Message]) -> bool:
        """Take messages in; the reply is whether to stop."""
        self._messages.extend(messages)
        return self._stopping

    def stop(self) -> None:
        """Tell every worker with its next message to stop."""
        self._stopping = True

    def drain(self) -> list[Message]:
        """Every message since the last call, oldest first."""
        messages, self._messages = self._messages, []
        return messages


def _run(ticket: int, task: Task, mailbox: ActorHandle[Mailbox]) -> list[End]:
    """Run a task. A job that raises ends its process, once the mailbox has the reason: see the local worker."""

    def send(messages: Sequence[Message]) -> bool:
        # the reply is awaited, so when a task ends its points are in the mailbox, in order
        return bool(ray.get(mailbox.put.remote(messages)))

    ended = run_task(ticket, task, send)
    if any(isinstance(end, Failed) for end in ended):
        send(ended)
        os._exit(1)
    return [end for end in ended if not isinstance(end, Failed)]


# a lost attempt is a row in the store: Ray must not repeat it behind our back
run_reused = ray.remote(max_retries=0)(_run)
# with several GPUs: a process that has used one keeps it, whatever GPU Ray gives to its next task
run_fresh = ray.remote(max_retries=0, max_calls=1)(_run)
