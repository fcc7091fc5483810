"""Optimisation profiles: the shapes that a plan is built for, and which of them serves a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engines.errors import EngineInputError, RuntimeFailedError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_BATCH: Final = 0
_CHANNELS: Final = 1


@dataclass(frozen=True)
class TensorSpec:
    """One input of a network; None where an axis is open."""

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Range:
    """Smallest, best and largest."""

    low: int
    best: int
    high: int


@dataclass(frozen=True)
class Sizes:
    """What one profile is for.

    batch  slices at once
    side   rows and columns, in pixels
    """

    batch: Range
    side: Range


SLICES: Final = Sizes(Range(1, 4, 4), Range(512, 512, 512))
"""Of CT: nearly all there are. A profile of one size lets TensorRT choose kernels for exactly this."""

_LEAST_SIDES_PX: Final = (16, 32, 64, 128)
_BEST_SIDE_PX: Final = 512
_LARGEST_SIDE_PX: Final = 1152
"""A tile of 1024, rounded up to a multiple; itself one of 128."""


def other_sizes(model: bytes) -> Sizes:
    """Other matrices than that of CT, and tiles: from the smallest that the network can take on."""
    return Sizes(Range(1, 1, 2), Range(_least_side(model), _BEST_SIDE_PX, _LARGEST_SIDE_PX))


@dataclass(frozen=True)
class Bounds:
    """Smallest, best and largest shape of one input."""

    name: str
    low: Shape
    best: Shape
    high: Shape

    def contains(self, shape: Shape) -> bool:
        return len(shape) == len(self.low) and all(
            low <= length <= high for low, length, high in zip(self.low, shape, self.high, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} from {_written(self.low)} to {_written(self.high)}"


@dataclass(frozen=True)
class Profile:
    bounds: tuple[Bounds, ...]

    def contains(self, shapes: Shapes) -> bool:
        return all(bounds.contains(shapes[bounds.name]) for bounds in self.bounds)

    def of(self, name: str) -> tuple[Shape, Shape]:
        """Smallest and largest shape of one input."""
        return next((bounds.low, bounds.high) for bounds in self.bounds if bounds.name == name)

    @property
    def largest_batch(self) -> int:
        return min(bounds.high[_BATCH] for bounds in self.bounds)

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds))


def open_axes(profiles: Sequence[Profile]) -> dict[str, tuple[int | None, ...]]:
    """What each input takes, None where an axis is open. Batches of any length are taken: they are cut."""
    taken = {}
    for name in (bounds.name for bounds in profiles[0].bounds):
        axes = zip(*(shape for profile in profiles for shape in profile.of(name)), strict=True)
        taken[name] = (None, *(_only(lengths) for lengths in list(axes)[1:]))
    return taken


def input_specs(model: bytes) -> tuple[TensorSpec, ...]:
    """The inputs of an ONNX network."""
    import onnx

    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(_spec(value) for value in graph.input if value.name not in constants)


def _least_side(model: bytes) -> int:
    """The first that ONNX finds no contradiction in: where an image is halved several times and joined to what it was,
    it must be a multiple."""
    import onnx

    for side in _LEAST_SIDES_PX:
        loaded = onnx.load_model_from_string(model)
        constants = {tensor.name for tensor in loaded.graph.initializer}
        for value in loaded.graph.input:
            if value.name not in constants:
                _fix_sides(value, side)
        try:
            onnx.shape_inference.infer_shapes(loaded, check_type=True, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError:
            continue
        return side
    return _BEST_SIDE_PX


def _fix_sides(value: Any, side: int) -> None:
    for axis in list(value.type.tensor_type.shape.dim)[2:]:
        axis.dim_value = axis.dim_value or side


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(value.name, tuple(axis.dim_value or None for axis in value.type.tensor_type.shape.dim))


def profiles_of(model: bytes) -> tuple[Profile, ...]:
    """The profiles that an ONNX network is built for."""
    return plan_profiles(input_specs(model), (SLICES, other_sizes(model)))


def plan_profiles(specs: Sequence[TensorSpec], wanted: Sequence[Sizes]) -> tuple[Profile, ...]:
    """The profiles to build, each once. Axes that the network fixes are as it says.

    Raises RuntimeFailedError where channels are open, or an input is no image: nothing could be built for it.
    """
    for spec in specs:
        if len(spec.shape) != 4 or spec.shape[_CHANNELS] is None:
            raise RuntimeFailedError(
                f"input {spec.name[:80]!r} is not (batch, channels, rows, columns) with known channels",
                "export the network with a fixed number of channels",
            )
    made = (Profile(tuple(_bounds(spec, sizes) for spec in specs)) for sizes in wanted)
    return tuple(dict.fromkeys(made))


def _bounds(spec: TensorSpec, sizes: Sizes) -> Bounds:
    ranges = [
        Range(length, length, length) if length is not None else sizes.batch if axis == _BATCH else sizes.side
        for axis, length in enumerate(spec.shape)
    ]
    low, best, high = zip(*((each.low, each.best, each.high) for each in ranges), strict=True)
    return Bounds(spec.name, low, best, high)


def fitting(profiles: Sequence[Profile], shapes: Shapes) -> int:
    """Number of the first profile that takes these shapes (they are given the narrow ones first), for as many slices
    at once as it takes: the batch may be larger, and is then cut in pieces.

    Raises EngineInputError that names what was given and what the plan was built for.
    """
    for number, profile in enumerate(profiles):
        largest = profile.largest_batch
        if profile.contains({name: (min(shape[0], largest), *shape[1:]) for name, shape in shapes.items()}):
            return number
    given = ", ".join(f"{name} {_written(shape)}" for name, shape in shapes.items())
    built = "; or ".join(map(str, profiles))
    raise EngineInputError(
        f"no plan for {given}: it was built for {built}", "cut the slices in tiles, or let another runtime compute"
    )


def pieces(batch: int, largest: int) -> tuple[slice, ...]:
    """How a batch is cut: no piece above `largest`, all alike as far as may be (a captured graph serves one shape), and
    two at least where there are two slices, so that one is copied while another is computed."""
    count = max(-(-batch // largest), min(batch, 2))
    size = -(-batch // count)
    return tuple(slice(start, min(start + size, batch)) for start in range(0, batch, size))


def _only(lengths: Sequence[int]) -> int | None:
    return lengths[0] if len(set(lengths)) == 1 else None


def _written(shape: Shape) -> str:
    return " x ".join(map(str, shape))
