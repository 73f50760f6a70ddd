"""The keys of a study file and the settings around a memory, for a terminal and as a page: `space --study`."""

from __future__ import annotations

from collections.abc import Sequence

from miras_search.commands.common import emit, inline, say
from miras_search.commands.entries import NOTHING, key_lines, settings_lines, task_text
from miras_search.commands.space_page import settings_table, table
from miras_search.metrics import METRICS
from miras_search.space.facts import settings_of
from miras_search.study.homes import SETTINGS
from miras_search.study.keys import Key, keys
from miras_search.tasks import facts as task_facts

HEAD = """\
# The study file

Every key of a study, and the settings of model, training, execution and gates. `miras-search space train` and the like
print a part of this page, which is written by `miras-search space --study --markdown`.

    name: bias
    question: Which attentional bias recalls best when the context is noisy?
    task: {name: noisy_recall, vocab: 40, length: 64, noise: 0.4}
    train: {steps: 250, lr: 2e-2}
    base: delta_net
    vary:
      bias: [dot, l2, {huber: {delta: 0.5}}]
      model.conv: [0]
    controls: [no_write]
    seeds: 8

It is YAML 1.2, read strictly: an unknown key, a key written twice, a number out of bounds are errors with their line
and column (`miras-search check FILE`). `--set PATH=VALUE` puts a value at a dotted path (`train.steps=20`,
`vary.bias=[dot, l2]`), and `--as NAME` stores the study under another name. A study that is stored is continued by
the same file: what decides its numbers may not change, more `seeds` or `trials` may be asked for, and `resources` are
free.

"""
PATHS = """\
## Paths and levels

`vary` and `tune` name what they change by a dotted path:

| path | a level there |
|---|---|
| `memory`, `bias`, `retention`, `algorithm` | an option of [space.md](space.md): `dot`, or `{lp: {p: 1.5}}` |
| `bias.delta`, `memory.expansion`, `retention.keep` | a setting of the option that the cell has there |
| `step` | a gate (below): a number is a fixed one |
| `execution.chunk`, `execution.gradient` | a setting of the execution (below) |
| `preset` | a whole design by a preset's name, or `{preset: gla, model: {conv: 4}}` with settings of its own |
| `mixer` | a torch module of your own: [extending.md](extending.md) |
| `model.conv`, `train.lr` | a setting of the model or the training (below) |

`base` takes a preset's name, the four choices spelled out, or both: `{preset: yaad, bias: {huber: {delta: 0.5}}}`. A
preset brings the settings of its own layer (`space --preset NAME` shows them); what the study says under `model`
wins.

## Blocks with rules of their own

    tune: {train.lr: [1e-2, 2e-2, 4e-2, 8e-2], model.conv: [0, 4], seeds: 3, failed: wait}
    top_up: {max_seeds: 16, looks: 3, spending: even, failed: wait}     # spending: even | late
    match: {params: {within: 0.1}}                                      # params | state | flops
    rival: {sampler: random, pruner: none}                              # of a search

`tune` gives every row the best of its settings by the metric on validation, over `seeds` that are not reported; a
learning rate takes four values or more. `top_up` looks at the table at evenly spaced numbers of seeds, and trains
more for what is undecided. With `failed: leave_out` both do without trainings that failed; with `wait` they wait for
`run --retry failed`. All of it is in [cli.md](cli.md#miras-search-plan-studyyaml); `rival` and the other keys of a
search are in [search.md](search.md).

## What a search may choose

Under `space`, by the same paths, but settings of an option, a gate and `execution` are written inside it, and `preset`
and `mixer` are no axes of a search:

| there | what may be chosen |
|---|---|
| `bias: any` | every option of the axis, with all its words, true and false; numbers and gates at their defaults |
| `bias: huber`, `bias: [dot, huber]` | these options as they are by default |
| `bias: [dot, {huber: {delta: [0.5, 1], form: any}}]` | options with settings; a list is a choice, `any` all words |
| `bias: {huber: any}` | one option with all its words |
| `{uniform: [a, b]}`, `{log_uniform: [a, b]}` | a number, drawn evenly or evenly in its logarithm |
| `{int: [a, b]}`, `{log_int: [a, b]}` | a whole number, its ends included |
| `step: {source: [fixed, data], scope: any, value: {uniform: [0.5, 0.9]}}` | a gate; a range alone is a fixed one |
| `execution: {chunk: [4, 8]}` | a setting of the execution |
| `train.lr: {log_uniform: [2e-3, 6e-2]}`, `model.heads: [1, 2, 4]` | a setting of the training or the model |

"""


def show(as_json: bool) -> None:
    """Print every key and setting."""
    if as_json:
        blocks = {name: {one.name: one.to_plain() for one in settings_of(cls)} for name, cls in SETTINGS.items()}
        emit({"keys": [key.to_plain() for key in keys()], "settings": blocks, "tasks": task_facts()})
        return
    for where in _kinds():
        say("\n".join([f"keys of {where}", *key_lines(key for key in keys() if key.where == where), "", ""]))
    for name, cls in SETTINGS.items():
        say("\n".join([f"settings of {_title(name)}", *settings_lines(settings_of(cls)), "", ""]))
    say("tasks\n" + "\n".join(map(task_text, task_facts())))


def page() -> str:
    """All of it as Markdown."""
    parts = [HEAD.rstrip("\n") + "\n"]
    for where in _kinds():
        parts.append(f"## Keys of {where}\n\n" + _keys([key for key in keys() if key.where == where]))
    parts.append(PATHS.rstrip("\n") + "\n")
    for name, cls in SETTINGS.items():
        parts.append(f"## Settings of {_title(name)}\n\n" + settings_table(settings_of(cls)))
    for task in task_facts():
        rows = [[f"`{one.name}`", f"`{inline(one.default)}`", one.help] for one in task.settings]
        source = f"\n\nSource: {task.source}." if task.source else ""
        about = f"{task.summary[:1].upper()}{task.summary[1:]}.{source}"
        parts.append(f"## Task `{task.name}`\n\n{about}\n\n" + table(["setting", "default", ""], rows))
    measured = [[f"`{it.name}`", it.direction, it.split or "a cost", it.unit, it.help] for it in METRICS.values()]
    parts.append("## Metrics\n\n" + table(["metric", "better", "table's split", "unit", ""], measured))
    return "\n".join(parts)


def _kinds() -> list[str]:
    return list(dict.fromkeys(key.where for key in keys()))


def _title(block: str) -> str:
    return f"a {block}" if block == "gate" else f"`{block}`"


def _keys(there: Sequence[Key]) -> str:
    rows = []
    for key in there:
        default = "needed" if key.needed else "" if key.default in NOTHING else f"`{inline(key.default)}`"
        words = f" ({key.words})" if "|" in key.words else ""
        rows.append([f"`{key.name}`", default, f"{key.help}{words}"])
    return table(["key", "default", ""], rows)
