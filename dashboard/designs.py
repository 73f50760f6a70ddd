"""A stored design as the cards of its choices, with the facts that `miras_search.space` tells about each option.

A database may hold an option that is not known here (another version wrote it, or a user's plugin has it): such a
choice is shown by its name and settings, and by what the plugin's text tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from miras_search.dashboard.markup import Card
from miras_search.space.design import AXES, CHOICES
from miras_search.space.facts import option_facts
from miras_search.space.plugin_text import Told

GATE = "where the gate comes from"


def cards(design: Mapping[str, object], others: Mapping[str, Told]) -> list[Card]:
    """The four choices, then the control if there is one, then the step gate and the execution; of a layer of the
    user's own its class and arguments. `others` are options of plugins, by name.
    """
    mixer = design.get("mixer")
    if isinstance(mixer, Mapping):
        args = mixer.get("args")
        rows = tuple((key, _text(value), "") for key, value in cast(Mapping[str, object], args or {}).items())
        source = f"source {mixer.get('digest')}"
        return [Card("layer of your own", str(mixer.get("module")), source=source, settings=rows)]
    found = [_choice(axis, design[axis], others) for axis in CHOICES if axis in design]
    control = design.get("control")
    if isinstance(control, Mapping) and "none" not in control:
        found.append(_choice("control", control, others))
    step = design.get("step")
    if isinstance(step, Mapping):
        found.append(Card("gate", "step", summary=gate_text(step), settings=()))
    execution = design.get("execution")
    if isinstance(execution, Mapping):
        rows = tuple((str(key), _text(value), "") for key, value in execution.items())
        found.append(Card("execution", _text(execution.get("gradient", "")), settings=rows))
    return found


def _choice(axis: str, spec: object, others: Mapping[str, Told]) -> Card:
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, settings),) = spec.items()
    else:
        name, settings = spec, {}
    given = cast(Mapping[str, object], settings) if isinstance(settings, Mapping) else {}
    option = AXES[axis].options.get(str(name))
    if option is None:
        rows = tuple((key, _text(value), "") for key, value in given.items())
        if (own := others.get(str(name))) is None:
            return Card(axis, str(name), settings=rows)
        return Card(axis, str(name), own.equation, own.summary, "a plugin of the study", rows)
    facts = option_facts(axis, option)
    helps = {setting.name: setting.help for setting in facts.settings}
    return Card(
        axis,
        str(name),
        equation=facts.equation,
        summary=facts.summary,
        source=facts.source,
        settings=tuple((key, _text(value), helps.get(key, "")) for key, value in given.items()),
    )


def gate_text(gate: Mapping[str, object]) -> str:
    """A gate in words: `fixed at 0.5`, `from the data (sigmoid, starts at 0.97)`."""
    source, value = gate.get("source"), _text(gate.get("value"))
    if source == "fixed":
        return f"fixed at {value}"
    origin = {"data": "from the data", "learned": "learned"}.get(str(source), str(source))
    scale = gate.get("scale", 1.0)
    upper = "" if scale == 1.0 else f", up to {_text(scale)}"
    return f"{origin} ({_text(gate.get('squash'))}, starts at {value}{upper}; one value a {_text(gate.get('scope'))})"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        if "source" in value:
            return gate_text(value)
        return ", ".join(f"{key}({_text(inner)})" if inner is not None else str(key) for key, inner in value.items())
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
