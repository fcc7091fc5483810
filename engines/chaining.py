"""Whether engines fit one after another: what each takes has to be given, and what leaves has to be an image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from engines.bundle.tables import nearest
from engines.card import EngineCard
from engines.errors import EngineInputError

IMAGE: Final = "image"
"""The input and the output that every image engine has."""
ORIGINAL: Final = "original"
"""What a chain began with, for engines that want it beside what was made of it; a series of that name goes before."""

_VOLUME: Final = "volume"


@dataclass(frozen=True)
class Link:
    """One engine of a chain.

    inputs, outputs  the kind of each by its name (`engines.card.Port.kind`)
    leaving          outputs of which objects are to be made; "" stands for the first (`first_output`)
    """

    reference: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    leaving: tuple[str, ...] = ()

    @classmethod
    def of(cls, reference: str, card: EngineCard, leaving: tuple[str, ...]) -> Self:
        """The engine of a card."""
        inputs, outputs = ({name: port.kind for name, port in side.items()} for side in (card.inputs, card.outputs))
        return cls(reference, inputs, outputs, leaving)


def main_input(inputs: Mapping[str, str]) -> str:
    """Of the inputs by kind the one whose grid all have: "image", else the first volume; "" where there is none."""
    volumes = [name for name, kind in inputs.items() if kind == _VOLUME]
    return IMAGE if IMAGE in volumes else next(iter(volumes), "")


def first_output(outputs: Collection[str]) -> str:
    """The output that the next engine takes as its image, and that leaves where none is named: "image", else the
    first."""
    return IMAGE if IMAGE in outputs else next(iter(outputs))


def ordered_outputs(outputs: Collection[str]) -> tuple[str, ...]:
    """All outputs, the first one first and the others by name: their places number what is made of them."""
    first = first_output(outputs)
    return (first, *sorted(name for name in outputs if name != first))


def check_links(links: Sequence[Link], given: Sequence[str]) -> None:
    """Raises EngineInputError with what the first engine that does not fit lacks, before anything is computed.

    given  names of the volumes that there are; the first is what goes in as the main input, whatever it is called
    """
    _check_main(links[0], given)
    for link in links:
        _check_own_image(link, given[1:])
    available = dict.fromkeys((IMAGE, ORIGINAL, *given[1:]), _VOLUME)
    for link in links:
        for name, kind in link.inputs.items():
            _check_taken(link, name, kind, available)
        for name in link.leaving:
            _check_leaving(link, name)
        first = first_output(link.outputs)
        available |= link.outputs
        if link.outputs[first] == _VOLUME:
            available[IMAGE] = _VOLUME


def _check_main(link: Link, given: Sequence[str]) -> None:
    main = main_input(link.inputs)
    if given and given[0] != main and given[0] in link.inputs:
        raise EngineInputError(
            f"the first series is {given[0]!r}, and {link.reference} makes its images of {main!r}",
            f"name first, in `needs`, the series that goes in as {main!r}",
        )


def _check_own_image(link: Link, others: Sequence[str]) -> None:
    """The images that an engine works on are the chain's: another series must never stand in for them."""
    main = main_input(link.inputs)
    for name in (main, IMAGE):
        if name and name in others:
            raise EngineInputError(
                f"{name!r} is not the first series, and {link.reference} makes its images of what is called so",
                f"name it first in `needs`; else call that series otherwise than {name!r}",
            )


def _check_taken(link: Link, name: str, kind: str, available: Mapping[str, str]) -> None:
    if kind == "prompt":
        raise EngineInputError(
            f"{link.reference} wants marks that a person drew, as {name!r}",
            "marks cannot be drawn here yet; `dicomnode engines check` can still try it",
        )
    found = available.get(name, _VOLUME if name == main_input(link.inputs) else None)
    if found is None:
        raise EngineInputError(
            f"{link.reference} takes {name!r}, and nothing gives it", f"{_nearest_to(name, available)}{_TAKEN_FROM}"
        )
    if found != kind:
        raise EngineInputError(f"{link.reference} takes a {kind} as {name!r}, which is a {found}", _TAKEN_FROM)


_TAKEN_FROM: Final = "`needs` of the rule names the series for each input, by the input's name"


def _nearest_to(name: str, available: Mapping[str, str]) -> str:
    others = [one for one in available if one not in (IMAGE, ORIGINAL)]
    return f"{nearest(name, others)} " if others else ""


def _check_leaving(link: Link, name: str) -> None:
    output = name or first_output(link.outputs)
    if output not in link.outputs:
        raise EngineInputError(f"{link.reference} has no output {output!r}", nearest(output, link.outputs))
    if link.outputs[output] != _VOLUME:
        what = "findings" if link.outputs[output] == "findings" else f"a {link.outputs[output]}"
        raise EngineInputError(
            f"{link.reference} gives {what}, and no DICOM object is made of that yet",
            "name an engine that gives images; `dicomnode engines check` can still try this one",
        )
