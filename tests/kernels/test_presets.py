"""Every preset has a paper's recurrence to be compared with: matrix memories in test_presets_linear.py, others in
test_presets_deep.py."""

from __future__ import annotations

import ast
from pathlib import Path

from miras_search.space.presets import PRESETS


def test_every_preset_has_a_loop() -> None:
    """In a dictionary named LOOPS of one of the files about presets; a hybrid's memory has that of its preset."""
    found: list[str] = []
    for file in Path(__file__).parent.glob("test_presets*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.value, ast.Dict)
                and "LOOPS" in ast.unparse(node.target)
            ):
                found += [ast.literal_eval(key) for key in node.value.keys if key is not None]
    assert sorted(found) == sorted(name for name in PRESETS if not name.endswith("_h"))
