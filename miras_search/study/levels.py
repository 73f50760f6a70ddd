"""One dotted path of a study and what a level does to it: applying it, spelling it, naming the cell it makes.

A path is `preset` (the whole design), an axis of the design, one of its settings (`bias.delta`, `execution.gradient`),
or a setting of the model or the training (`train.lr`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import cast

from miras_search.models.config import ModelConfig
from miras_search.space.design import AXES, KEYS, DesignPoint
from miras_search.space.execution import Execution
from miras_search.space.fields import Path, SpecError, build, field_types, flow, nearest, to_plain
from miras_search.space.gates import Gate
from miras_search.space.own_mixer import OwnMixer
from miras_search.space.presets import PRESETS
from miras_search.study import whole
from miras_search.study.homes import meant
from miras_search.study.whole import PRESET as PRESET
from miras_search.study.whole import Whole
from miras_search.training.config import TrainConfig

CONFIGS = ("model", "train")
AROUND_OWN = ("layers", "d_model", "heads", "feed_forward", "feed_forward_ratio", "tie_embeddings", "init_scale")
"""The settings of a model that reach a layer of the user's own, where no layer of the model is a memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """What one cell is, complete: a design and the settings around it."""

    design: DesignPoint
    model: ModelConfig
    train: TrainConfig

    @property
    def key(self) -> str:
        """Equal exactly where two variants are the same function, trained alike."""
        model = to_plain(self.model.canonical())
        if self.design.mixer is not None and not self.model.attention_every:
            model = {name: value for name, value in model.items() if name in AROUND_OWN}
        return json.dumps([self.design.hash, model, to_plain(self.train)], sort_keys=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What the study says for every cell, whichever preset it is."""

    execution: Mapping[str, object] = dataclasses.field(default_factory=dict)
    model: Mapping[str, object] = dataclasses.field(default_factory=dict)


def preset_model(
    name: str | None, held: Mapping[str, object], where: Path, own: Mapping[str, object] | None = None
) -> ModelConfig:
    """The model around a preset's memory: the settings of its layer, unless the study, or the level itself, says
    otherwise. Raises `SpecError` where they do not go together.
    """
    layer = PRESETS[name].model if name in PRESETS else {}
    return build(ModelConfig, {**layer, **held, **(own or {})}, where)


def check_path(path: str, where: Path) -> None:
    """Raise `SpecError` where nothing of a study answers to a path."""
    head, _, rest = path.partition(".")
    if head == "task":
        raise SpecError.at(where, "a task cannot be varied: list the tasks under task; every cell is trained on each")
    if head in CONFIGS:
        known = field_types(ModelConfig if head == "model" else TrainConfig)
        if not rest:
            raise SpecError.at(where, f"name one setting, as in {head}.{next(iter(known))}")
        if rest not in known:
            raise SpecError.at(where, f"{head} has no setting '{rest}'{nearest(rest, known)}")
    elif path != PRESET and head not in KEYS:
        hint = nearest if rest else meant
        what = f"unknown axis '{path}'{hint(head, [*KEYS, PRESET, *CONFIGS])}"
        raise SpecError.at(where, what)


def applied(variant: Variant, path: str, level: object, held: Held, where: Path) -> Variant:
    """The variant with a level put at a path that `check_path` has let through.

    Raises `SpecError` with problems below `where`, the level's own place.
    """
    head, _, rest = path.partition(".")
    if head == "model":
        model = build(ModelConfig, {**to_plain(variant.model), rest: level}, where)
        return dataclasses.replace(variant, model=model)
    if head == "train":
        train = build(TrainConfig, {**to_plain(variant.train), rest: level}, where)
        return dataclasses.replace(variant, train=train)
    if path == PRESET:
        return _whole(variant, whole.read(level, where), held, where)
    return dataclasses.replace(variant, design=_design(variant.design, path, level, where))


def _whole(variant: Variant, level: Whole, held: Held, where: Path) -> Variant:
    """The variant with its design, and the model and training that come with it."""
    given = level.settings.get("execution")
    for key, value in (given if isinstance(given, Mapping) else {}).items():
        if key in held.execution and held.execution[key] != value:
            what = f"the study holds {key}: {held.execution[key]} for every cell: drop one of the two"
            raise SpecError.at((*where, "execution", str(key)), what)
    design = with_execution(DesignPoint.parse(level.design, where), held.execution)
    model = preset_model(level.preset, held.model, (*where, "model") if level.model else where, level.model)
    train = build(TrainConfig, {**to_plain(variant.train), **level.train}, (*where, "train"))
    return Variant(design, model, train)


def besides(level: Whole, variant: Variant, base: Variant) -> dict[str, str]:
    """What a whole design sets beside what it is built on, where that is not the base's: path -> text."""
    found: dict[str, str] = {}
    for path in level.settings:
        text = text_at(variant, path)
        if text is not None and not (path.split(".")[0] in CONFIGS and text == text_at(base, path)):
            found[path] = text
    return found


def _design(point: DesignPoint, path: str, level: object, where: Path) -> DesignPoint:
    head, _, rest = path.partition(".")
    if path == "execution":
        if not isinstance(level, Mapping):
            raise SpecError.at(where, f"expected settings of execution, got {level!r}")
        return with_execution(point, level, where)
    if path in AXES:  # parsed here, so that a problem lies at the level's own path
        option = AXES[path].parse(level, where)
        return point.changed(path, {option.name: to_plain(option)})
    if head in AXES and rest.partition(".")[0] not in field_types(type(getattr(point, head))):
        option = getattr(point, head)
        raise SpecError.at(
            where, f"the {head} '{option.name}' has no setting '{rest}': list whole options under vary.{head} instead"
        )
    return point.changed(path, level, where)


def with_execution(point: DesignPoint, settings: Mapping[str, object], where: Path = ()) -> DesignPoint:
    """The point with some settings of its execution replaced. Raises `SpecError`."""
    execution = Execution.from_plain({**point.execution.to_plain(), **settings}, where)
    return dataclasses.replace(point, execution=execution)


def text_at(variant: Variant, path: str) -> str | None:
    """What the variant has at a path, as short text; None where its options have no such setting.

    A preset is a name that a design point does not know, so `preset` is not a path here.
    """
    head, *rest = path.split(".")
    owner: object = variant if head in CONFIGS else variant.design
    value, default = getattr(owner, head), None
    for part in rest:
        if isinstance(value, OwnMixer) and part == "args":
            value, default = value.args, None
            continue
        if isinstance(value, Mapping):
            if part not in value:
                return None
            value, default = value[part], None
            continue
        found = {f.name: f for f in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else {}
        if part not in found:
            return None
        value, default = getattr(value, part), found[part].default
    return _text(value, default)


def _text(value: object, default: object = None) -> str:
    """A setting, an option or a gate in few words: what names it and what is unusual; different values differ."""
    if isinstance(value, Gate):
        return _gate(value, default if isinstance(default, Gate) else Gate())
    if value is None or isinstance(value, bool | float):
        return flow(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if dataclasses.is_dataclass(value) and hasattr(value, "name"):
        settings = [
            (f.name, getattr(value, f.name), None if f.metadata.get("named") else f.default)
            for f in dataclasses.fields(value)
            if f.init
        ]
        return _with_settings(str(value.name), settings)
    return str(value)


def _gate(gate: Gate, default: Gate) -> str:
    if gate.source == "fixed":
        return _text(gate.value)
    names = [f.name for f in dataclasses.fields(gate) if f.name != "source"]
    return _with_settings(gate.source, [(name, getattr(gate, name), getattr(default, name)) for name in names])


def _with_settings(name: str, settings: Iterable[tuple[str, object, object]]) -> str:
    parts = [f"{key}={_text(value, default)}" for key, value, default in settings if value != default]
    return f"{name}({', '.join(parts)})" if parts else name


def label(path: str, text: str, varied: Iterable[str]) -> str:
    """The name that a level gives its cell: `huber(delta=0.5)`, `expansion=2`; longer where names would collide."""
    others = [other for other in varied if other != path]
    if path == PRESET:
        return text
    if path in AXES:
        shared = [other for other in others if other in AXES and AXES[other].options.keys() & AXES[path].options.keys()]
        return f"{path}={text}" if shared else text
    last = path.rpartition(".")[2]
    return f"{path if last in [other.rpartition('.')[2] for other in others] else last}={text}"


def application_order(paths: Iterable[str]) -> list[str]:
    """Whole designs first, then axes, then single settings: a later level must not undo an earlier one."""
    return sorted(paths, key=lambda path: (path != PRESET, path.count(".")))


def mixed_execution(designs: Iterable[DesignPoint]) -> bool:
    """Whether no single execution makes all the designs what they are.

    Designs may differ in settings that change nothing for them: a gradient that does not depend on the weights is the
    same at every place.
    """
    found = list(designs)
    candidates = dict.fromkeys(design.execution for design in found)
    return len(candidates) > 1 and not any(
        all(dataclasses.replace(design, execution=run).hash == design.hash for design in found) for run in candidates
    )


def execution_difference(one: DesignPoint, other: DesignPoint) -> dict[str, object]:
    """The settings of the second design's execution that the first does not share."""
    mine, theirs = one.execution.to_plain(), other.execution.to_plain()
    return {key: cast(object, value) for key, value in theirs.items() if mine[key] != value}
