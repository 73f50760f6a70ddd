"""A calibration's result written into the study file: the task's difficulty, the rate, and the evidence as comments.

The rest of the file stays as it is, comments too. Evidence of an earlier calibration is replaced.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from miras_search.space.fields import Plain

MARK = "calibrated: "  # begins every line of evidence


def rewritten(
    text: str, task: Mapping[str, Plain], rate: float, rates: Sequence[float], evidence: Sequence[str]
) -> str:
    """The study's text with these settings of its task, its rate, and where it tunes the rate these values to try.

    The text is a study of one task that has been read before, so it has the keys that are looked at.
    """
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith(f"# {MARK}"))
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 120
    tree = yaml.load(kept)
    written = tree["task"][0] if isinstance(tree["task"], CommentedSeq) else tree["task"]
    if isinstance(written, str):
        written = _flow({"name": written})
        if isinstance(tree["task"], CommentedSeq):
            tree["task"][0] = written
        else:
            tree["task"] = written
    written.update(task)
    if not isinstance(tree.get("train"), CommentedMap):
        tree.insert(list(tree).index("task") + 1, "train", _flow({}))
    tree["train"]["lr"] = rate
    if isinstance(tree.get("tune"), CommentedMap) and "train.lr" in tree["tune"]:
        tree["tune"]["train.lr"] = CommentedSeq(rates)
        tree["tune"]["train.lr"].fa.set_flow_style()
    lines = "\n".join(f"{MARK}{line}" for line in evidence)
    tree.yaml_set_comment_before_after_key("task", before=lines)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def _flow(values: Mapping[str, Plain]) -> CommentedMap:
    made = CommentedMap(values)
    made.fa.set_flow_style()
    return made
