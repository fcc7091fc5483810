"""EngineCard: what an engine says about itself, and what the node holds it to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from engines.errors import SettingError

SettingValue = float | int | str | bool

Task = Literal["image", "contrast", "super-resolution", "segment", "detect"]
Operation = Literal["denoise", "contrast", "enhance", "super-resolution", "segment", "detect"]
Method = Literal["", "glcae", "clahe"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True)
class Port:
    """One named input or output.

    kind          volume, mask, findings or prompt (a box or RECIST marks that a person drew)
    unit          "HU", "arbitrary", or "as-input" where the engine keeps the unit it was given
    presentation  True: values are for the eye only; the node writes a presentation image, never HU
    labels        of a mask what its labels mean, from 1 on; of findings what is found, in the order of the scores
    """

    kind: Literal["volume", "mask", "findings", "prompt"] = "volume"
    unit: str = "as-input"
    presentation: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How values enter a network, and leave it again: it sees (value - offset) / divisor.

    clip  (lowest, highest) that values are cut to before they enter, or after they have left; None: they are not
    """

    offset: float = 0.0
    divisor: float = 1.0
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class TensorInput:
    """What goes into one input of a network. Several of one `tensor` are its channels, in their order.

    source    a name of the card's inputs, or the target of an earlier stage: of one name, what was made last
    adjacent  how many slices on each side come along as channels: 1 gives three; at the ends the last one is repeated
    """

    tensor: str
    source: str
    scale: Scale = Scale()
    adjacent: int = 0


@dataclass(frozen=True)
class TensorOutput:
    """What one output of a network is.

    target       a name of the card's outputs, or a name that a later stage takes; of a contrast task a setting of its
                 method; of a detector "scores" or "boxes"
    residual_of  name of the source that the output is subtracted from, in its units; "" where it is the image
    """

    tensor: str
    target: str
    scale: Scale = Scale()
    residual_of: str = ""


@dataclass(frozen=True)
class Stage:
    """One ONNX file of a bundle: NCHW in, NCHW out.

    halo_px      how far a pixel of the output looks: tiles overlap by it
    multiple_px  rows and columns must be a multiple of this; slices are padded by reflection
    factor       rows and columns of the output for one of the input
    """

    file: str
    inputs: tuple[TensorInput, ...]
    outputs: tuple[TensorOutput, ...]
    halo_px: int = 0
    multiple_px: int = 1
    factor: int = 1


@dataclass(frozen=True)
class Setting:
    """A number a site may choose, within bounds."""

    default: SettingValue
    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Envelope:
    """What an engine was made for. An empty tuple or None does not restrict.

    Lengths in mm, tube voltage in kV. Ranges are inclusive (low, high).
    kernels         Convolution Kernel as the vendor writes it; `*` and `?` stand for any characters and for one
    contrast_agent  whether Contrast/Bolus Agent must be given, or must be absent
    """

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    kvp: tuple[float, float] | None = None
    slice_thickness_mm: tuple[float, float] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    rows_columns: tuple[int, int] = (16, 16384)
    minimum_slices: int = 1
    kernels: tuple[str, ...] = ()
    contrast_agent: Literal["any", "with", "without"] = "any"


@dataclass(frozen=True)
class Limits:
    """What the gate after the engine holds the output to; None is not checked. What each figure means, and in which
    unit, stands at `engines.quality.QualityReport`. The defaults are the house's; docs/gates.md says what they catch.

    bias_hu             largest |mean change| in the core of each tissue band, over the whole volume
    slice_bias_hu       the same within any one slice
    noise_ratio         (lowest, highest) noise after / noise before in flat tissue
    nps_excess          largest share of noise power that may be added at any one frequency
    edge_modulation     (lowest, highest) share of the modulation at edges that is left
    edge_correlation    largest correlation of the residual with the source's edges, in any one slice
    blob                most that a blob of a nodule's size may stand out of the residual
    slice_fit           largest misfit to its own source slice, as a share of the misfit to the next best
    clipped_fraction    largest share of voxels at the ends of the stored range that were not there before
    clipped_bone        largest share of a slice's bone voxels that are cut off flat
    """

    bias_hu: float | None = 4.0
    slice_bias_hu: float | None = 8.0
    noise_ratio: tuple[float, float] | None = None
    nps_excess: float | None = 1.0
    edge_modulation: tuple[float, float] | None = (0.75, 1.25)
    edge_correlation: float | None = 0.35
    blob: float | None = 7.5
    slice_fit: float | None = 0.8
    clipped_fraction: float | None = 0.001
    clipped_bone: float | None = 0.02


@dataclass(frozen=True)
class EngineCard:
    """Identity and declaration of an engine.

    task       one of the closed list: image (same grid; one stage or several, each of which may leave), contrast (same
               grid, presentation values, by a classical operation, with or without a network that predicts its
               parameters), super-resolution (another grid), segment (a mask), detect (findings)
    stages     the networks of a bundle, in order; empty for a classical engine
    method     of a contrast task: the classical operation, whose settings the network predicts
    precisions that its golden test passed with at its maker's: what a runtime may compute in
    operation  what is done, in words for a DerivationDescription
    influence  slice: an output slice depends on its one input slice; volume: on all of them. Decides derived UIDs.
    runtime    what computes it, with its precision: part of the identity of everything derived
    bundle     digest of the bundle that it comes from; empty for a classical engine
    """

    name: str
    version: str
    task: Task
    operation: Operation
    intended_use: str
    influence: Literal["slice", "volume"]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    envelope: Envelope
    limits: Limits
    settings: Mapping[str, Setting] = field(default_factory=dict)
    runtime: str = "numpy/float32"
    source: str = ""
    stages: tuple[Stage, ...] = ()
    method: Method = ""
    precisions: tuple[Precision, ...] = ("float32",)
    bundle: str = ""

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of the whole card. An engine whose output changes must change its version, and so its digest."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> str:
        """The digest that everything derived carries: of a bundle its own, which is over its networks too, and which no
        limit of the house changes; else that of the card."""
        return self.bundle or self.digest

    def resolve(self, settings: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
        """Defaults overlaid with `settings`; raises SettingError on an unknown name or a value out of bounds."""
        for name in settings:
            if name not in self.settings:
                known = ", ".join(sorted(self.settings)) or "none"
                raise SettingError(f"{self.name} has no setting {name!r}", f"its settings are: {known}")
        return {
            name: _checked(self.name, name, spec, settings.get(name, spec.default))
            for name, spec in self.settings.items()
        }


def _checked(engine: str, name: str, spec: Setting, value: SettingValue) -> SettingValue:
    if type(value) is int and type(spec.default) is float:
        value = float(value)
    if type(value) is not type(spec.default):
        kind = type(spec.default).__name__
        raise SettingError(f"{engine}: setting {name} is {value!r}", f"write it as {kind}, like {spec.default!r}")
    if spec.choices and value not in spec.choices:
        raise SettingError(f"{engine}: setting {name} is {value!r}", f"choose one of: {', '.join(spec.choices)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = spec.minimum, spec.maximum
        if (low is not None and value < low) or (high is not None and value > high) or value != value:
            raise SettingError(f"{engine}: setting {name} is {value}", f"choose a value from {low} to {high}")
    return value
