"""Tasks: generators of training, validation and test data, one file each. Importing the package registers them all."""

from miras_search.tasks import mqar, noisy_recall, text
from miras_search.tasks.base import (
    IGNORE,
    TASKS,
    Batch,
    EvaluationSplit,
    Guess,
    SettingFacts,
    Task,
    TaskFacts,
    facts,
    files_hash,
    register_task,
    task_from_spec,
    task_to_spec,
    unbound,
)

__all__ = [
    "IGNORE",
    "TASKS",
    "Batch",
    "EvaluationSplit",
    "Guess",
    "SettingFacts",
    "Task",
    "TaskFacts",
    "facts",
    "files_hash",
    "mqar",
    "noisy_recall",
    "register_task",
    "task_from_spec",
    "task_to_spec",
    "text",
    "unbound",
]
