"""Options from a user's own modules: `plugins: [my_module]` in a study.

A plugin is one file. Its source is read once, by the driver; what runs everywhere, in the driver and in every worker on
whatever machine, is that text, and its hash enters the hash of each design that uses one of its options. So nothing has
to be installed, a file that is edited while a study runs changes nothing, and an edited option is another design.

One set of plugins is in force at a time: that of the study that was read last.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import keyword
import linecache
import os
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, final

from miras_search.space.design import AXES
from miras_search.space.fields import Path, Problem, SpecError, nearest
from miras_search.space.option import ORIGINS, Origin, RegistrationError, origin
from miras_search.space.own_mixer import IN_FORCE
from miras_search.space.traits import complete

KEY = "plugins"  # in a study, and in the places of problems


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Plugin:
    """A user's module, with all that a machine without its file needs."""

    name: str
    path: str
    """Where it was found; another machine may have nothing there. Tracebacks name it."""
    source: str = dataclasses.field(repr=False)
    digest: str
    """Of the source, and of the plugins before it that it imports."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Loaded:
    """A plugin that has run in this process."""

    module: types.ModuleType
    options: tuple[tuple[str, type[Any]], ...]  # with their axes
    others: tuple[tuple[str, type[Any]], ...]  # with their registries' names


REGISTRIES: dict[str, dict[str, type[Any]]] = {}
"""What a plugin may add to beside the axes, each entered by its own module: classes by their `name`."""

_LOADED: dict[tuple[str, str], _Loaded] = {}  # by name and digest


def find(names: Sequence[str], folder: FilePath) -> tuple[Plugin, ...]:
    """The plugins of these names: `folder/NAME.py`, else a module on Python's path. Nothing is run.

    Raises `SpecError` with every problem, at its position below `plugins`.
    """
    found: list[Plugin] = []
    problems: list[Problem] = []
    for number, name in enumerate(names):
        try:
            if name in names[:number]:
                raise SpecError.at((KEY, number), f"'{name}' is listed twice: drop one")
            found.append(_read(name, folder.absolute(), (KEY, number), found))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(problems)
    return tuple(found)


def use(plugins: Sequence[Plugin]) -> None:
    """Put the options of these plugins, and of no others, beside the package's own.

    Runs a plugin's source the first time that this process meets it. Raises `SpecError`, and then no plugin is in
    force, where a plugin raises or registers what cannot be an option.
    """
    _clear()
    try:
        for number, plugin in enumerate(plugins):
            _use(plugin, (KEY, number))
            IN_FORCE[plugin.name] = Origin(plugin.name, plugin.digest), plugin.source
    except SpecError:
        _clear()
        raise


def _read(name: str, folder: FilePath, where: Path, before: Sequence[Plugin]) -> Plugin:
    """Find a plugin's file and read it; its digest covers the plugins that it imports."""
    if not name.isidentifier() or keyword.iskeyword(name):
        cure = f"'{FilePath(name).stem}'" if name.endswith(".py") else "a file of its own beside the study"
        raise SpecError.at(where, f"'{name}' is not the name of a module that is one file: write {cure}")
    path = _file(name, folder, where)
    try:
        source = importlib.util.decode_source(path.read_bytes())
        tree = ast.parse(source, str(path))
    except (OSError, ValueError, SyntaxError) as error:  # ValueError: not UTF-8, or null bytes
        raise SpecError.at(where, _told(error, str(path))) from error
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    parts = [source, *(plugin.digest for plugin in before if plugin.name in imported)]
    return Plugin(name, str(path), source, hashlib.sha256("\0".join(parts).encode()).hexdigest())


def _file(name: str, folder: FilePath, where: Path) -> FilePath:
    """The file of a module: beside the study, else on the path, and not in both. Raises `SpecError`."""
    if name in sys.stdlib_module_names or name == __name__.partition(".")[0]:
        raise SpecError.at(where, f"'{name}' is a module of Python's own or of miras-search: give yours another name")
    beside, elsewhere = folder / f"{name}.py", _installed(name)
    if elsewhere is None:
        if beside.is_file():
            return beside
        others = [file.stem for file in folder.glob("*.py")]
        cure = nearest(name, others) if others else ""
        raise SpecError.at(where, f"no module '{name}': no file {beside}, and nothing on Python's path{cure}")
    if beside.is_file() and not os.path.samefile(beside, elsewhere):
        raise SpecError.at(where, f"two modules are called '{name}': {beside} and {elsewhere}: rename yours")
    if elsewhere.suffix != ".py" or elsewhere.stem == "__init__":
        raise SpecError.at(where, f"'{name}' is {elsewhere}: a plugin is a single file of Python source")
    return beside if beside.is_file() else elsewhere


def _installed(name: str) -> FilePath | None:
    """The file that `import` would find on the path, whatever is loaded under that name; None for a mere folder too."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return FilePath(spec.origin) if spec.origin else None
    return None


def _clear() -> None:
    """Take the options of all plugins off their axes, and their modules out of reach of an import."""
    for axis in AXES.values():
        for name in [name for name, cls in axis.options.items() if origin(cls) is not None]:
            del axis.options[name]
    for known in REGISTRIES.values():
        for name in [name for name, cls in known.items() if origin(cls) is not None]:
            del known[name]
    IN_FORCE.clear()
    for (name, _), loaded in _LOADED.items():
        if sys.modules.get(name) is loaded.module:
            del sys.modules[name]


def _use(plugin: Plugin, where: Path) -> None:
    """Register a plugin's options, running it if it is new here. Raises `SpecError`; nothing is registered then."""
    before = {axis: dict(known.options) for axis, known in AXES.items()}
    key = plugin.name, plugin.digest
    try:
        loaded = _again(_LOADED[key], plugin.name) if key in _LOADED else _run(plugin, before)
    except (Exception, SystemExit) as error:  # the border to a user's code: whatever it raises is told at its line
        _restore(before)
        for kind, cls in _defined(plugin.name):
            del REGISTRIES[kind][cls.name]
        raise SpecError.at(where, _told(error, plugin.path)) from error
    if key not in _LOADED:
        _LOADED[key] = loaded
        ORIGINS.update({cls: Origin(*key) for _, cls in (*loaded.options, *loaded.others)})


def _again(loaded: _Loaded, name: str) -> _Loaded:
    """Register what the plugin registered when it ran in this process."""
    sys.modules[name] = loaded.module
    for axis, cls in loaded.options:
        AXES[axis].register(cls)
    for kind, cls in loaded.others:
        REGISTRIES[kind][cls.name] = cls
    return loaded


def _defined(module: str) -> list[tuple[str, type[Any]]]:
    """What a module has added to the registries beside the axes."""
    return [(kind, cls) for kind, known in REGISTRIES.items() for cls in known.values() if cls.__module__ == module]


def _run(plugin: Plugin, before: Mapping[str, Mapping[str, object]]) -> _Loaded:
    """Run a plugin's source as a module of its name, and complete the options that it registers."""
    module = types.ModuleType(plugin.name)
    module.__file__ = plugin.path
    module.__spec__ = importlib.machinery.ModuleSpec(plugin.name, None, origin=plugin.path)
    # tracebacks show what runs here: the file may hold something else by now, or be on another machine
    linecache.cache[plugin.path] = (len(plugin.source), None, plugin.source.splitlines(keepends=True), plugin.path)
    replaced = sys.modules.get(plugin.name)
    sys.modules[plugin.name] = module  # dataclasses look their module up
    try:
        with contextlib.redirect_stdout(sys.stderr):  # results go to stdout
            exec(compile(plugin.source, plugin.path, "exec", dont_inherit=True), module.__dict__)
        new = [
            (axis, cls)
            for axis, known in AXES.items()
            for name, cls in known.options.items()
            if name not in before[axis]
        ]
        for axis, cls in new:
            problems = complete(axis, cls)
            if problems:
                what = "; ".join(problems)
                raise RegistrationError(f"the {axis} '{cls.name}' (class {cls.__name__}) is incomplete: {what}")
    except BaseException:
        del sys.modules[plugin.name]
        if replaced is not None:
            sys.modules[plugin.name] = replaced
        raise
    return _Loaded(module, tuple(new), tuple(_defined(plugin.name)))


def _restore(before: Mapping[str, Mapping[str, type[Any]]]) -> None:
    for axis, options in before.items():
        AXES[axis].options.clear()
        AXES[axis].options.update(options)


def _told(error: BaseException, path: str) -> str:
    """What went wrong in a user's file: file, line, kind of error, message; all of it one line."""
    if isinstance(error, OSError) and error.filename == path:
        return f"{path}: cannot be read: {error.strerror}"
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    what = " ".join(str(error).split())
    if not isinstance(error, RegistrationError):
        what = f"{type(error).__name__}: {what}"
    if isinstance(error, ModuleNotFoundError) and FilePath(path).with_name(f"{error.name}.py").is_file():
        what += f": list '{error.name}' under {KEY} too, before the one that imports it"
    return f"{path}:{lines[-1]}: {what}" if lines else f"{path}: {what}"
