"""Nothing imports upwards, by the syntax of every file; and the parts of a bare GPU machine load without the rest."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = ("miras_search", "space", "kernels", "dashboard", "studies")

BOTTOM = {"errors", "files", "jsonable", "metrics", "miras_search", "seeds"}  # miras_search itself: the version
DATA = BOTTOM | {"space", "store"}
TRAINED = BOTTOM | {"compiler", "space", "kernels", "models", "tasks"}
# room -> the rooms it may import besides itself, from docs/architecture.md
ALLOWED: dict[str, set[str]] = {
    "miras_search": set(),
    "errors": set(),
    "files": set(),
    "jsonable": set(),
    "compiler": {"errors"},
    "metrics": set(),
    "seeds": set(),
    "studies": set(),
    "space": {"errors"},
    "kernels": {"errors", "space"},
    "models": {"errors", "space", "kernels"},
    "tasks": {"errors", "space"},
    "training": TRAINED,
    "study": TRAINED | {"training"},
    "store": BOTTOM,
    "analysis": DATA | {"tasks"},  # tasks: the chance level of a stored task, numpy alone
    "export": DATA | {"analysis"},
    "dashboard": DATA | {"analysis", "export"},
    "engine": TRAINED | {"training", "study", "store", "analysis"},  # analysis: what a look at the table decides
    "bench": TRAINED | {"training", "analysis", "study", "store", "engine"},
    "doctor": DATA | {"compiler", "engine", "kernels"},
    "commands": TRAINED
    | {"training", "study", "store", "engine", "analysis", "export", "bench", "doctor", "dashboard"},
    "cli": BOTTOM | {"commands"},
    "__main__": {"cli"},
    "api": TRAINED | {"training", "study", "store", "engine", "analysis", "export"},
}
FRONT_DOOR = ("miras_search", "miras_search.api")  # for type checkers; loaded when a name is first asked for
# third-party package -> the rooms that may import it
ONLY_IN: dict[str, set[str]] = {
    "optuna": {"engine", "space.sampling", "analysis.importance", "bench.filled"},
    "ray": {"engine"},
    "sqlalchemy": {"store", "engine", "bench.filled"},
    "alembic": {"store"},
    "streamlit": {"dashboard"},
    "plotly": {"dashboard"},
    "matplotlib": {"export"},
    "pydantic": {"study"},
    "ruamel": {"study"},
    "typer": {"cli", "commands"},
    "rich": {"cli", "commands"},
    "triton": {"kernels"},
    "torch": {"space", "kernels", "models", "training", "engine", "bench", "commands", "doctor"},
}
BARE = {"ray", "optuna", "sqlalchemy", "alembic", "pydantic", "ruamel", "typer", "rich", "streamlit", "pandas", "scipy",
        "plotly"}  # fmt: skip


def sources() -> dict[str, Path]:
    """Every module of the package by its name; links are not followed."""
    found = {}
    for top in TOP:
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if parts[0] == "miras_search" else ("miras_search", *parts)
            found[".".join(part for part in parts if part != "__init__")] = file
    return found


MODULES = sources()


def room(module: str) -> str:
    """`miras_search.store.writer` -> `store`."""
    return module.split(".")[1] if "." in module else module


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST, *, typing: bool, inner: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements; those for types alone with `typing`, those inside functions with `inner`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not inner:
            continue
        elif isinstance(child, ast.If) and is_type_checking(child) and not typing:
            for other in child.orelse:
                yield from walk(ast.Module([other], []), typing=typing, inner=inner)
        else:
            yield from walk(child, typing=typing, inner=inner)


@cache
def imports(module: str, *, typing: bool = True, inner: bool = True) -> frozenset[str]:
    """Absolute names that a module imports; `from package import module` counts as the module."""
    found = set()
    for node in walk(ast.parse(MODULES[module].read_text()), typing=typing, inner=inner):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{module}: relative import: write miras_search.{module}"
        base = node.module or ""
        found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return frozenset(found)


def reached(start: set[str]) -> dict[str, str]:
    """Every name that loading the modules loads, with the module that asks for it."""
    asked, queue = dict.fromkeys(start, "the start"), list(start)
    while queue:
        module = queue.pop()
        parents = {module.rpartition(".")[0]} & set(MODULES)
        for name in parents | (imports(module, typing=False, inner=False) if module in MODULES else frozenset()):
            if name not in asked:
                asked[name] = module
                queue.append(name)
    return asked


def test_every_room_is_in_the_table() -> None:
    assert {room(module) for module in MODULES} == set(ALLOWED)
    assert "miras_search.space.design" in MODULES
    assert "miras_search.models.mixer" in MODULES


def test_nothing_imports_upwards() -> None:
    wrong = []
    for module in MODULES:
        for name in imports(module):
            if name.split(".")[0] != "miras_search":
                assert name.split(".")[0] not in TOP, f"{module} imports {name}: write miras_search.{name}"
                continue
            if (module, name) != FRONT_DOOR and room(name) not in ALLOWED[room(module)] | {room(module)}:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_the_table_has_no_cycle() -> None:
    """So that it is an order, and a permission given too freely shows."""
    remaining = {name: set(below) for name, below in ALLOWED.items()}
    while remaining:
        free = {name for name, below in remaining.items() if not below & set(remaining)}
        assert free, sorted(remaining)
        remaining = {name: below for name, below in remaining.items() if name not in free}


def test_packages_of_others_stay_in_their_rooms() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        places = {room(module), module.removeprefix("miras_search.")}
        for name in imports(module):
            top = name.split(".")[0]
            if top in ONLY_IN and not places & ONLY_IN[top]:
                found[top].append(module)
    assert not found


@pytest.mark.parametrize(
    ("rooms", "never"),
    [
        (("dashboard",), {"torch", "triton", "ray", "optuna", "miras_search.engine", "miras_search.training",
                          "miras_search.models", "miras_search.kernels"}),
        (("space",), {"torch", "triton", "numpy", "optuna"}),
        (("store",), {"torch", "ray", "optuna", "streamlit"}),
        (("analysis", "export"), {"torch", "ray", "optuna", "streamlit", "typer"}),
        (("kernels", "models", "tasks", "training"), BARE),
        (("cli", "miras_search"), {"torch", "triton", "ray", "optuna", "sqlalchemy", "streamlit", "pandas", "scipy",
                                   "pydantic", "matplotlib", "miras_search.api"}),
    ],
)  # fmt: skip
def test_loading_a_room_never_loads(rooms: tuple[str, ...], never: set[str]) -> None:
    """Module-level imports, followed through our own modules."""
    lazy = {"miras_search.space.sampling", "miras_search.space.smooth"}
    start = {module for module in MODULES if room(module) in rooms} - lazy
    assert start
    loaded = reached(start)
    wrong = {
        name: asked for name, asked in loaded.items() if any(name == bad or name.startswith(f"{bad}.") for bad in never)
    }
    assert not wrong


BLOCKED = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED_NAMES:
            raise ImportError(f"{name} is not on this machine")
        return None

sys.meta_path.insert(0, Refuse())
for name in ("kernels", "models", "tasks", "training"):
    package = importlib.import_module(f"miras_search.{name}")
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(info.name)
from miras_search.training import run
assert not {name.split(".")[0] for name in sys.modules} & BLOCKED_NAMES
"""


def test_a_bare_gpu_machine_needs_neither_ray_nor_a_store() -> None:
    names = {"ray", "optuna", "sqlalchemy", "pydantic", "ruamel"}
    found = subprocess.run(
        [sys.executable, "-c", f"BLOCKED_NAMES = {names!r}\n{BLOCKED}"],
        cwd=ROOT.parent,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "TRITON_INTERPRET": "1", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
