"""What a study file may say, with defaults and help: its keys, and the settings of model, training, gates, execution.

`miras-search space --study` and docs/study.md are written from here; the words themselves stand beside each key in
schema.py, and beside each setting in its dataclass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from miras_search.space.facts import SettingFacts, settings_of, type_text
from miras_search.space.fields import Plain
from miras_search.study.homes import SETTINGS
from miras_search.study.schema import WRITTEN, Confirm, Resources, SearchFile, StudyFile

BOTH, ABLATION, SEARCH = "every study", "kind: ablation", "kind: search"
BLOCKS: dict[str, type[BaseModel]] = {"resources": Resources, "confirm": Confirm}
"""Keys that have keys of their own."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a study file."""

    name: str
    """Dotted where it lies in another: `resources.cpus`."""
    where: str
    """In which kind of study."""
    needed: bool
    default: Plain
    """As a file writes it; None also where there is none."""
    words: str
    """What it may be where that is a list of words: `base | cells`; else empty."""
    help: str

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data."""
        return {
            "name": self.name,
            "where": self.where,
            "needed": self.needed,
            "default": self.default,
            "words": self.words,
            "help": self.help,
        }


def keys() -> tuple[Key, ...]:
    """Every key: those of every study, of an ablation, of a search; a block's own after it."""
    ablation, search = StudyFile.model_fields, SearchFile.model_fields
    unlike = ("kind", "seeds")  # in both, with another meaning
    both = [name for name in ablation if name in search and name not in unlike]
    found = [*_keys(StudyFile, both, BOTH)]
    found += _keys(StudyFile, (name for name in ablation if name not in both), ABLATION)
    found += _keys(SearchFile, (name for name in search if name not in both), SEARCH)
    return tuple(found)


def _keys(file: type[BaseModel], names: Iterable[str], where: str, above: str = "") -> Iterator[Key]:
    for name in names:
        field = file.model_fields[name]
        words = type_text(field.annotation) if get_origin(field.annotation) is Literal else ""
        block = BLOCKS.get(name) if not above else None
        default = None if field.is_required() or block else _default(field)
        yield Key(f"{above}{name}", where, field.is_required(), default, words, field.description or "")
        if block:
            yield from _keys(block, block.model_fields, where, f"{name}.")


def _default(field: FieldInfo) -> Plain:
    extra = field.json_schema_extra
    return cast(Plain, extra[WRITTEN] if isinstance(extra, dict) and WRITTEN in extra else field.default)


def settings() -> dict[str, tuple[SettingFacts, ...]]:
    """The settings of each block."""
    return {name: settings_of(cls) for name, cls in SETTINGS.items()}
