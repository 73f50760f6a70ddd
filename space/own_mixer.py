"""A layer of the user's own in place of a memory: `mixer: {module: my_layers.MyLayer, args: {...}}`.

Such a design has no choices: it is a class and its arguments. What the class is decides the numbers, so the hash of the
file that defines it is part of the design, as the hash of a plugin is. The file is found and read, never imported, so
that checking a study with a layer of a large package costs no import of torch; the names of class and arguments are
checked on its syntax tree. Only `load_class`, where a model is built, runs it.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import cast, final

from miras_search.space.fields import Path, Plain, SpecError, flow, nearest
from miras_search.space.option import Origin

GIVEN = ("heads", "layer")
"""What a constructor is given besides `d_model` if it has a parameter of that name."""
KEYS = ("module", "args", "digest")
DIGITS = 12  # of a digest, in a design

IN_FORCE: dict[str, tuple[Origin, str]] = {}
"""The plugins in force by name, with their source; filled by `plugins`."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class OwnMixer:
    """A class of the user's with its arguments: a torch module [B,T,d] -> [B,T,d]."""

    module: str
    """The class's dotted path: `my_layers.MyLayer`."""
    text: str = "{}"
    """Its arguments, as JSON with sorted keys: a design can be hashed."""
    digest: str = ""
    """Of the file that defines the class."""

    @classmethod
    def from_plain(cls, data: object, where: Path = (), default: object = None) -> OwnMixer:
        """From the class's path, or a mapping of `module` and `args`.

        Without a `digest` the class's file is found and read; with one, as in a stored design, it need not be there.
        Raises `SpecError` with the first problem.
        """
        spec = {"module": data} if isinstance(data, str) else data
        if not isinstance(spec, Mapping):
            raise SpecError.at(where, f"expected a class's path, as in my_layers.MyLayer, got {data!r}")
        for key in spec:
            if key not in KEYS:
                raise SpecError.at((*where, str(key)), f"unknown key{nearest(str(key), KEYS)}")
        module, args, digest = spec.get("module"), spec.get("args"), spec.get("digest", "")
        place = where if isinstance(data, str) else (*where, "module")
        if module is None:
            raise SpecError.at(where, "'module' is missing: the class's path, as in my_layers.MyLayer")
        if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
            raise SpecError.at(place, f"{module!r} is not a class's path, as in my_layers.MyLayer")
        if not isinstance(digest, str):
            raise SpecError.at((*where, "digest"), f"expected a word, got {digest!r}")
        mixer = cls(module, _args_text({} if args is None else args, (*where, "args")), digest)
        if digest:
            return mixer
        found = definition(module, place)
        _check_arguments(mixer, found, (*where, "args"))
        return dataclasses.replace(mixer, digest=found.digest)

    @property
    def args(self) -> dict[str, Plain]:
        """The arguments, as a fresh mapping."""
        return cast(dict[str, Plain], json.loads(self.text))

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.module.rpartition(".")[2]

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data; `from_plain` gives an equal mixer back, wherever its file is."""
        return {"module": self.module, "args": self.args, "digest": self.digest}

    def __str__(self) -> str:
        args = ", ".join(f"{key}={flow(value)}" for key, value in self.args.items())
        return f"{self.name}({args})" if args else self.name


@dataclasses.dataclass(frozen=True, slots=True)
class Definition:
    """Where a class is defined, as far as its source tells."""

    digest: str
    file: str
    tree: ast.ClassDef | None = None
    """None where the source does not say: a compiled module, a name that is computed or imported from elsewhere."""


def definition(path: str, where: Path = ()) -> Definition:
    """The file that defines a class, without running anything. Raises `SpecError` where there is none.

    A name that its module only imports from another module is followed there.
    """
    seen: list[str] = []
    while path not in seen:
        seen.append(path)
        module, _, name = path.rpartition(".")
        if not module:
            raise SpecError.at(where, f"'{path}' names no class: write module and class, as in {path}.MyLayer")
        source, file, digest = _source(module, where)
        if source is None:
            return Definition(digest, file)
        try:
            tree = ast.parse(source, file)
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes
            raise SpecError.at(where, f"{file}: {' '.join(str(error).split())}") from error
        found = _in_tree(name, module, tree, Definition(digest, file))
        if isinstance(found, Definition):
            return found
        if found is None:
            known = [node.name for node in _statements(tree.body) if isinstance(node, ast.ClassDef)]
            raise SpecError.at(where, f"{file} has no class '{name}'{nearest(name, known)}")
        path = found
    raise SpecError.at(where, f"'{seen[0]}' is imported in a circle: {' -> '.join([*seen, path])}")


def load_class(mixer: OwnMixer, where: Path = ()) -> type:
    """The class itself; its module is imported, unless it is a plugin, which has run already.

    Raises `SpecError` where it is not there or is no longer what the design says.
    """
    found = definition(mixer.module, where).digest
    if mixer.digest and found != mixer.digest:
        what = f"the source of {mixer.module} is {found} here and {mixer.digest} in this design: an edited layer is "
        raise SpecError.at(where, what + "another design, so run the study under another name (--as)")
    module, _, name = mixer.module.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SpecError.at(where, f"{mixer.module} cannot be imported: {' '.join(str(error).split())}") from error
    if not isinstance(made, type):
        raise SpecError.at(where, f"{mixer.module} is {type(made).__name__}, not a class")
    return made


def _source(module: str, where: Path) -> tuple[str | None, str, str]:
    """A module's source, its file and the file's digest; no source for a compiled one. Raises `SpecError`."""
    if module in IN_FORCE:
        origin, source = IN_FORCE[module]
        return source, f"{module}.py", origin.digest[:DIGITS]
    file = _file(module)
    if file is None:
        top = module.partition(".")[0]
        cure = f"if {top}.py lies beside the study, add `plugins: [{top}]`, else install its package"
        raise SpecError.at(where, f"no module '{module}' on Python's path: {cure}")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:DIGITS]
    try:
        return (importlib.util.decode_source(content) if file.suffix == ".py" else None), str(file), digest
    except (SyntaxError, UnicodeDecodeError) as error:
        raise SpecError.at(where, f"{file}: not Python source: {error}") from error


def _file(module: str) -> FilePath | None:
    """The file of a module, found part by part: importing the packages above it might import torch."""
    search: list[str] | None = None
    origin: str | None = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        name = ".".join(parts[:number])
        spec = next((spec for finder in sys.meta_path if (spec := finder.find_spec(name, search)) is not None), None)
        if spec is None:
            return None
        search, origin = list(spec.submodule_search_locations or ()), spec.origin
    return FilePath(origin) if origin and FilePath(origin).is_file() else None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's own statements, those below a condition too, but not those of its functions and classes."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for inner in ast.iter_child_nodes(node):
                if isinstance(inner, ast.stmt):
                    yield from _statements([inner])
                elif isinstance(inner, ast.ExceptHandler):
                    yield from _statements(inner.body)


def _in_tree(name: str, module: str, tree: ast.Module, found: Definition) -> Definition | str | None:
    """The class of that name in a module's source, or the path that the name is imported from; None: it is not there.

    A definition without its class where the name is computed, or may come with a star.
    """
    last: Definition | str | None = None
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            last = dataclasses.replace(found, tree=node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    last = f"{_base(node, module, found.file)}.{alias.name}"
                elif alias.name == "*":
                    last = last or found
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                last = found
        elif isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            last = last or found
    return last


def _base(node: ast.ImportFrom, module: str, file: str) -> str:
    """The absolute name of the module that a statement imports from."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    drop = node.level - (FilePath(file).stem == "__init__")
    return ".".join([*parts[: len(parts) - drop], *([node.module] if node.module else [])])


def _args_text(args: object, where: Path) -> str:
    """A constructor's arguments as JSON. Raises `SpecError`."""
    if not isinstance(args, Mapping):
        raise SpecError.at(where, f"expected a mapping of the constructor's arguments, got {args!r}")
    for key in args:
        if not isinstance(key, str) or not key.isidentifier():
            raise SpecError.at(where, f"{key!r} is not the name of an argument")
    if "d_model" in args:
        raise SpecError.at((*where, "d_model"), "a layer's width is the model's: set model.d_model")
    try:
        return json.dumps(args, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError.at(where, f"arguments are plain data (numbers, words, lists, mappings): {error}") from error


def _check_arguments(mixer: OwnMixer, found: Definition, where: Path) -> None:
    """Raise `SpecError` for what the constructor does not take, as far as its source tells."""
    if found.tree is None:
        return
    made = [n for n in found.tree.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if not made or made[0].decorator_list:
        return  # inherited, or a decorator's business
    spec = made[0].args
    named = [*spec.posonlyargs, *spec.args][1:]
    needed = {arg.arg for arg in named[: len(named) - len(spec.defaults)]}
    needed |= {arg.arg for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if default is None}
    known = {arg.arg for arg in [*named, *spec.kwonlyargs]}
    if "d_model" not in known and spec.kwarg is None:
        what = f"{mixer.name}.__init__ has no parameter 'd_model': a layer is given the model's width by that name"
        raise SpecError.at(where[:-1], what)
    for name in mixer.args:
        if name not in known and spec.kwarg is None:
            what = f"{mixer.name}.__init__ has no such parameter{nearest(name, known - {'d_model'})}"
            raise SpecError.at((*where, name), what)
    missing = sorted(needed - {"d_model", *GIVEN, *mixer.args})
    if missing:
        raise SpecError.at(where, f"'{missing[0]}' is missing: {mixer.name}.__init__ has no default for it")
