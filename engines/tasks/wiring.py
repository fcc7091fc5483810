"""Whether a card's networks can give what it promises: what `engines.bundle.soundness` cannot see without the tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from engines.card import EngineCard, Task
from engines.errors import BundleError
from engines.tasks import contrast, detect

_GIVES: Final[Mapping[Task, str]] = {"segment": "mask", "detect": "findings"}
_LARGEST_FACTOR: Final = 8
_MOST_LABELS: Final = 255
"""Labels are stored as uint8."""


def check_chain(card: EngineCard) -> None:
    """Raises BundleError where the networks of a card cannot give what it promises."""
    for problem, hint in _problems(card):
        raise BundleError(f"{card.name}: {problem}", hint)


def output_factor(card: EngineCard) -> int:
    """Rows and columns of the card's outputs for one of the source."""
    known = _factors(card)
    return max((known[name] for name in card.outputs if name in known), default=1)


def multiple_px(card: EngineCard) -> int:
    """What rows and columns of a region must be a multiple of, so that no stage pads it."""
    return math.lcm(*(stage.multiple_px for stage in card.stages))


def _factors(card: EngineCard) -> dict[str, int]:
    """Rows and columns for one of the source, by what the card's inputs and targets are called."""
    known = dict.fromkeys(card.inputs, 1)
    for stage in card.stages:
        factor = stage.factor * max(known[entry.source] for entry in stage.inputs)
        known |= {output.target: factor for output in stage.outputs}
    return known


def _problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    targets = {output.target for stage in card.stages for output in stage.outputs}
    if max(_factors(card).values()) > _LARGEST_FACTOR:
        yield f"its stages give {max(_factors(card).values())} times the rows", f"at most {_LARGEST_FACTOR}"
    yield from _port_problems(card)
    if card.task == "detect":
        yield from _detector_problems(card)
    elif card.task == "contrast":
        yield from _contrast_problems(card, targets)
    else:
        yield from _grid_problems(card, targets)
    yield from _slice_problems(card)
    yield from _prompt_problems(card)


def _port_problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    wanted = _GIVES.get(card.task, "volume")
    for name, port in card.outputs.items():
        if port.kind != wanted:
            yield f"its output {name!r} is a {port.kind}", f"the task {card.task} gives a {wanted}"
        if wanted != "volume" and not 0 < len(port.labels) <= _MOST_LABELS:
            yield f"its output {name!r} has {len(port.labels)} labels", f"name 1 to {_MOST_LABELS}"
    if not any(port.kind == "volume" for port in card.inputs.values()):
        yield "it takes no volume", "its first volume gives the grid"
    for name, port in card.inputs.items():
        if port.kind == "findings":
            yield f"its input {name!r} is findings", "a network takes volumes, masks and prompts"


def _grid_problems(card: EngineCard, targets: set[str]) -> Iterator[tuple[str, str]]:
    known = _factors(card)
    for name in card.outputs:
        if name not in targets:
            yield f"no stage gives its output {name!r}", "let a stage's output have it as target"
        elif (known[name] == 1) == (card.task == "super-resolution") or known[name] != output_factor(card):
            yield f"its output {name!r} has {known[name]} times the rows", "super-resolution alone changes the grid"


def _slice_problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    known = _factors(card)
    for stage in card.stages:
        if len({known[entry.source] for entry in stage.inputs}) > 1:
            yield f"{stage.file} takes sources of different grids", "channels of one network have one grid"
    looks_beside = any(entry.adjacent for stage in card.stages for entry in stage.inputs)
    if card.influence == "slice" and (looks_beside or card.method):
        yield "its slices depend on others, and its influence is said to be 'slice'", "write influence = 'volume'"


def _detector_problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    last = card.stages[-1]
    if not {detect.SCORES, detect.BOXES} <= {output.target for output in last.outputs}:
        yield "a detector's last stage gives no scores, or no boxes", "let its outputs have these as targets"
    if any(_factors(card)[entry.source] != 1 for entry in last.inputs):
        yield (
            "a detector's last stage looks at a finer grid",
            "let it look at the slices themselves: boxes are on these",
        )
    if len(card.outputs) > 1:
        yield f"a detector has {len(card.outputs)} outputs", "let it have one"


def _contrast_problems(card: EngineCard, targets: set[str]) -> Iterator[tuple[str, str]]:
    if len(card.outputs) > 1:
        yield f"a contrast engine has {len(card.outputs)} outputs", "let it have one"
    if card.method not in contrast.METHODS:
        yield "a contrast engine has no method", f"choose one of: {', '.join(contrast.METHODS)}"
    predicted = targets & set(contrast.PREDICTED)
    if not predicted or predicted & set(card.settings):
        yield "it predicts no setting of its method, or one that a site may set too", "a setting is one or the other"


def _prompt_problems(card: EngineCard) -> Iterator[tuple[str, str]]:
    prompts = [name for name, port in card.inputs.items() if port.kind == "prompt"]
    if len(prompts) > 1:
        yield f"it takes {len(prompts)} prompts", "one prompt may have several marks"
    if prompts and card.task in ("super-resolution", "contrast"):
        yield f"it takes a prompt for {card.task}", "that is of whole slices"
