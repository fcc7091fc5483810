"""A card to begin with: every key that matters, with what it means, for one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engines.bundle.tables import quoted
from engines.card import Task

_HEAD: Final = """\
# What the engine is, what it was made for, and where it comes from. All keys: docs/engines.md.
# Complete what is "" here, then: dicomnode engines make FOLDER
format = 1

[engine]
name = {name}
version = "1.0.0"
task = "{task}"
operation = "{operation}"             # denoise, contrast, enhance, super-resolution, segment, detect
intended_use = ""                   # a sentence: what for, on which images, and what it is not for
influence = "{influence}"                 # slice: each slice for itself; volume: an output depends on other slices too
precisions = ["float32"]            # also "bfloat16", "float16": `engines make` measures what they differ by
{method}
[engine.inputs.image]
unit = "HU"                         # or "arbitrary": CR, DX, MR

{outputs}
[engine.envelope]                   # what it was made for: anything else is refused. What is left out is not asked
modalities = ["CT"]
# body_parts = ["CHEST", "LUNG"]
# kvp = [100.0, 140.0]
# kernels = ["B3?f", "STANDARD"]    # * and ? stand for characters
# slice_thickness_mm = [0.5, 1.5]
# pixel_spacing_mm = [0.5, 0.98]

[engine.limits]                     # what its output is held to; "none" is not judged. See docs/gates.md
{limits}

{settings}[[engine.stages]]                   # one for each network, in their order
file = {file}
halo_px = {halo_px}                     # how far a pixel of the output looks; `engines make` says where it is too small
multiple_px = {multiple_px}                     # what it divides rows and columns by: 16 for a U-Net of four levels
{factor}
[[engine.stages.inputs]]
tensor = {taken}
source = "image"
adjacent = 0                        # 1: the slices before and after come along as channels; influence = "volume"
scale = {{ offset = 0.0, divisor = 1000.0 }}   # the network sees (value - offset) / divisor

{stage_outputs}[provenance]
maker = ""
licence = ""                        # of the weights, such as "Apache-2.0"
limitations = []                    # what it does badly, a sentence each

[provenance.training]
run = ""                            # what made the weights: a commit, a run, a paper
recipe = ""

# [[provenance.data]]               # the images that it was trained and judged on, one table each
# name = ""
# licence = ""
# attribution = ""
# role = "training"                 # training, validation, test
# patients = 0
"""

_IMAGE_LIMITS: Final = """\
bias_hu = 2.0                       # mean change in HU of air, lung, fat, soft tissue, bone
# noise_ratio = [0.1, 1.0]          # noise after / noise before"""


@dataclass(frozen=True)
class _Kind:
    """What is different from task to task. `targets`: what the network's outputs are, in their order."""

    operation: str
    outputs: str
    targets: tuple[str, ...]
    more: str = ""
    limits: str = "# nothing is measured of what this task gives"
    settings: str = ""
    method: str = ""
    influence: str = "slice"


_VOLUME: Final = '[engine.outputs.image]\nunit = "HU"\n'
_SCALED: Final = "scale = { offset = 0.0, divisor = 1000.0 }   # of the image: network * divisor + offset"
_KINDS: Final[Mapping[Task, _Kind]] = {
    "image": _Kind(
        "denoise",
        _VOLUME,
        ("image",),
        f'{_SCALED}\n# residual_of = "image"             # where the network gives what is to be taken away from it',
        _IMAGE_LIMITS,
    ),
    "super-resolution": _Kind("super-resolution", _VOLUME, ("image",), _SCALED, _IMAGE_LIMITS),
    "segment": _Kind(
        "segment",
        '[engine.outputs.mask]\nkind = "mask"\nlabels = ["liver"]                  # channels from the second on\n',
        ("mask",),
    ),
    "detect": _Kind(
        "detect",
        '[engine.outputs.findings]\nkind = "findings"\nlabels = ["nodule"]                 # one for each score\n',
        ("scores", "boxes"),
        settings="""\
[engine.settings.score]
default = 0.5
meaning = "least score of a finding"
minimum = 0.0
maximum = 1.0

[engine.settings.overlap]
default = 0.3
meaning = "largest share that two findings of one label may have in common"
minimum = 0.0
maximum = 1.0

""",
    ),
    "contrast": _Kind(
        "contrast",
        '[engine.outputs.image]\nunit = "arbitrary"\npresentation = true                 # for the eye: no HU\n',
        ("clip",),
        "scale = { offset = 1.0, divisor = 7.0, clip = [1.0, 8.0] }   # the setting of the method that it predicts",
        'clipped_fraction = "none"',
        influence="volume",
        method='method = "clahe"                    # or "glcae"; the network predicts a setting of it\n',
    ),
}


@dataclass(frozen=True)
class Network:
    """What is known of an ONNX file: its name, its inputs and outputs, and how far it looks."""

    file: str = "network.onnx"
    inputs: Sequence[str] = ("x",)
    outputs: Sequence[str] = ("y",)
    halo_px: int = 0
    multiple_px: int = 1


_NOTHING: Final = Network()


def card_template(name: str, task: Task, network: Network = _NOTHING) -> str:
    """A card.toml with comments. What only its maker can say is "" in it, and `engines.making.make` asks for it."""
    kind = _KINDS[task]
    outputs = (*network.outputs, *(f"output{number}" for number in range(len(network.outputs), len(kind.targets))))
    return _HEAD.format(
        name=quoted(name),
        task=task,
        operation=kind.operation,
        method=kind.method,
        influence=kind.influence,
        outputs=kind.outputs,
        limits=kind.limits,
        settings=kind.settings,
        file=quoted(network.file),
        halo_px=network.halo_px,
        multiple_px=network.multiple_px,
        taken=quoted(network.inputs[0]),
        factor="factor = 2                          # rows and columns for one of the source\n"
        if task == "super-resolution"
        else "",
        stage_outputs="".join(
            f'[[engine.stages.outputs]]\ntensor = {quoted(tensor)}\ntarget = "{target}"\n{kind.more}\n'
            for tensor, target in zip(outputs, kind.targets, strict=False)
        ),
    )
