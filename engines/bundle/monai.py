"""MONAI bundles, as far as they map: a network over slices, with what its metadata says of it.

A MONAI bundle is a folder with `configs/metadata.json` (what the network takes and gives, who made it), `models/` (the
weights: `model.pt`, which is pickled and is never opened here, and where the network could be exported `model.onnx`),
and `docs/`. What is done before and after the network stands in further files, as expressions of Python: these are
never read. So how HU become what the network sees, its golden test, envelope and limits are for a person to say.
Source: MONAI Bundle Specification, docs.monai.io (metadata.json, "Tensor format specifiers").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from engines.bundle.folder import Bundle, read_file
from engines.bundle.networks import channels_of, check_network, names_of
from engines.bundle.provenance import Provenance, Training
from engines.bundle.reach import reach_of
from engines.bundle.soundness import check_card
from engines.bundle.tables import read_table
from engines.card import EngineCard, Envelope, Limits, Port, Scale, Stage, TensorInput, TensorOutput
from engines.errors import BundleError
from engines.tiling import DEFAULT_TILE_PX
from engines.volume import ARBITRARY, HU

METADATA: Final = Path("configs", "metadata.json")
NETWORK: Final = Path("models", "model.onnx")
_LARGEST_METADATA_BYTES: Final = 2**20
_LARGEST_NETWORK_BYTES: Final = 2**30
_VALUES: Final = ("hounsfield", "magnitude", "raw")
_LABELS: Final = ("labels",)
_CLASSES: Final = "classes"
"""Channels that stand for themselves, as the probability of the only label does: "labels" has the background too."""
_MULTIPLE: Final = re.compile(r"(?:(\d{1,4})|2\*\*(\d))\*[a-z]|[a-z]\*(\d{1,4})")
_FILE: Final = "model.onnx"
_AS_IT_IS: Final = Scale()
_OURS: Final = "dicomnode"
"""Key of metadata.json for what the specification has no place for; readers pass over keys that they do not know."""

_NOT_IN_METADATA: Final = (
    "its transforms (spacing, orientation, intensity, inverse) are expressions of Python, and were not read: see that "
    "the scale given is theirs, and that the envelope keeps out what they would have resampled",
    "it has no golden test of its maker's: the one written here holds other machines to this one, not to its training",
    "it says nothing of an envelope, or of limits after the engine (those of the house hold; the noise is not "
    "judged): write them into card.toml",
    "only float32 is allowed; allow others after a look at the golden test in them",
)


@dataclass(frozen=True)
class Imported:
    """A MONAI bundle in our words; `unmapped` is what it does not say, or says and we cannot keep, a sentence each."""

    card: EngineCard
    provenance: Provenance
    network: bytes = field(repr=False)
    unmapped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tensor:
    """A tensor format specifier, of the keys that we use."""

    format: str
    modality: str
    channels: int
    spatial: tuple[object, ...]
    meanings: tuple[str, ...]


@dataclass(frozen=True)
class _Ours:
    """How values enter the network and leave it, how far it looks, and whether it gives what is to be taken away."""

    enters: Scale = _AS_IT_IS
    leaves: Scale = _AS_IT_IS
    halo_px: int = 0
    residual: bool = False


def import_monai(folder: Path, name: str, scale: Scale | None = None) -> Imported:
    """Read a MONAI bundle.

    name   what the engine is to be called
    scale  how values enter its network; of an image they leave it by the same. None: as an export of ours has kept it,
           else as they are
    Raises BundleError where it has no ONNX file, works on volumes instead of slices, or does what no task here does.
    """
    metadata = _metadata(folder)
    network = read_file(folder / NETWORK, _LARGEST_NETWORK_BYTES)
    formats = _table(metadata, "network_data_format")
    taken, given = (_only(_table(formats, place), place) for place in ("inputs", "outputs"))
    if taken.format not in _VALUES:
        raise BundleError(f"its input is of the format {taken.format[:40]!r}", f"mapped are: {', '.join(_VALUES)}")
    card = _card(metadata, (taken, given), name)
    ours, said = _ours(metadata, scale)
    card = replace(card, stages=(_stage(names_of(network, _FILE), (taken, given), card, ours),))
    check_card(card)
    check_network(network, card.stages[0])
    card, looks = _with_reach(card, network)
    return Imported(card, _provenance(metadata), network, (*said, *looks, *_NOT_IN_METADATA, *_shape_words(taken)))


def _ours(metadata: Mapping[str, Any], scale: Scale | None) -> tuple[_Ours, tuple[str, ...]]:
    """What an export of ours has kept, with the scale that was asked for; and what had to be assumed."""
    kept = read_table(_Ours, metadata[_OURS], f"metadata.json: {_OURS}") if _OURS in metadata else None
    if scale is not None:
        return replace(kept or _Ours(), enters=scale, leaves=scale), ()
    if kept is not None:
        return kept, ()
    return _Ours(), (
        "no --divisor was given: its network gets values as they are (HU, undivided). Is it made for that?",
    )


def _with_reach(card: EngineCard, network: bytes) -> tuple[EngineCard, tuple[str, ...]]:
    """The card with a halo that is no smaller than its network looks, as far as that can be told."""
    (stage,) = card.stages
    reach = reach_of(network, stage)
    if reach.px is not None:
        halo_px = max(stage.halo_px, reach.px)
        return replace(card, stages=(replace(stage, halo_px=halo_px),)), ()
    if reach.unknown:
        return card, (f"how far its network looks cannot be told ({reach.unknown}): write it as halo_px",)
    low, high = card.envelope.rows_columns
    envelope = replace(card.envelope, rows_columns=(min(low, DEFAULT_TILE_PX), min(high, DEFAULT_TILE_PX)))
    told = f"its network looks at whole slices: the card takes none larger than {DEFAULT_TILE_PX} px, which go in whole"
    return replace(card, envelope=envelope), (told,)


def export_monai(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """Write a bundle into an existing, empty folder as a MONAI bundle; what it loses by that, a sentence each.

    Raises BundleError where it has several networks, or what they take and give cannot be said there.
    """
    card = bundle.card
    if (
        len(card.stages) != 1
        or len(card.inputs) != 1
        or len(card.outputs) != 1
        or len(card.stages[0].outputs) != 1
        or card.task not in ("image", "segment")
    ):
        raise BundleError(
            f"{card.reference} has no place in a MONAI bundle", "what has one network, input and output has"
        )
    if any(folder.iterdir()):
        raise BundleError(f"{folder.name} is not empty", "write a bundle into a folder of its own")
    network = bundle.networks[0].read_bytes()
    channels = channels_of(network, card.stages[0])[card.stages[0].outputs[0].tensor]
    for path, content in (
        (METADATA, json.dumps(_as_metadata(bundle, channels), indent=2).encode()),
        (NETWORK, network),
        (Path("docs", "README.md"), (bundle.folder / "CARD.md").read_bytes()),
        (Path("docs", "license.txt"), f"{bundle.provenance.licence}\n".encode()),
    ):
        (folder / path.parent).mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return (
        *_residual_words(bundle),
        *_channel_words(bundle, channels),
        "MONAI asks for models/model.pt, the weights as PyTorch pickles them: only who trained them can add it",
        f"the scale before and after the network is under a key of ours ({_OURS}): MONAI wants it as transforms",
        "the envelope, the limits, the golden test, the digests and the signature have no place there",
    )


def _metadata(folder: Path) -> Mapping[str, Any]:
    try:
        metadata = json.loads(read_file(folder / METADATA, _LARGEST_METADATA_BYTES))
    except (ValueError, RecursionError):
        raise BundleError("metadata.json is no JSON", "give the folder of a MONAI bundle, unpacked") from None
    if not isinstance(metadata, dict):
        raise BundleError("metadata.json is no table", "give the folder of a MONAI bundle, unpacked")
    return metadata


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = table.get(key)
    if not isinstance(found, dict):
        raise BundleError(f"metadata.json has no {key}", "the specification asks for it: complete it first")
    return found


def _text(table: Mapping[str, Any], key: str, default: str = "") -> str:
    found = table.get(key, default)
    return found[:4000] if isinstance(found, str) else default


def _only(tensors: Mapping[str, Any], place: str) -> _Tensor:
    if len(tensors) != 1:
        raise BundleError(f"its network has {len(tensors)} {place}", "only what has one of each is mapped")
    found = _table(tensors, next(iter(tensors)))
    channels, spatial, meanings = (found.get(key) for key in ("num_channels", "spatial_shape", "channel_def"))
    if type(channels) is not int or not isinstance(spatial, list) or found.get("dtype") != "float32":
        raise BundleError(
            f"metadata.json: its {place} lack num_channels, spatial_shape, or dtype float32", "complete it"
        )
    if len(spatial) != 2:
        raise BundleError(f"its network works on {len(spatial)} axes", "engines here work on slices: rows and columns")
    named = meanings if isinstance(meanings, dict) else {}
    words = tuple(_text(named, str(channel), f"channel {channel}")[:64] for channel in range(min(channels, 256)))
    return _Tensor(_text(found, "format"), _text(found, "modality"), channels, tuple(spatial), words)


def _card(metadata: Mapping[str, Any], tensors: tuple[_Tensor, _Tensor], name: str) -> EngineCard:
    taken, given = tensors
    unit = HU if taken.format == "hounsfield" or taken.modality == "CT" else ARBITRARY
    is_image = given.format in _VALUES and given.channels == 1
    if not is_image and not (given.format in _LABELS and given.channels > 1):
        raise BundleError(
            f"its output is of the format {given.format[:40]!r} with {given.channels} channels",
            "mapped are an image of one channel, and labels with one channel each, the background first",
        )
    return EngineCard(
        name=name,
        version=_version(_text(metadata, "version")),
        task="image" if is_image else "segment",
        operation="denoise" if is_image else "segment",
        intended_use=_text(metadata, "intended_use") or _text(metadata, "task") or _text(metadata, "description"),
        influence="slice" if taken.channels == 1 else "volume",
        inputs={"image": Port(unit=unit)},
        outputs={"image": Port(unit=unit)} if is_image else {"mask": Port("mask", labels=given.meanings[1:])},
        envelope=Envelope(
            modalities=(taken.modality,) if taken.modality in ("CT", "MR") else (), rows_columns=_rows(taken)
        ),
        limits=Limits(),
        source=_text(metadata, "description")[:400],
    )


def _stage(
    names: tuple[Sequence[str], Sequence[str]], tensors: tuple[_Tensor, _Tensor], card: EngineCard, ours: _Ours
) -> Stage:
    """The network's own names count: those of metadata.json are for people."""
    taken, _ = tensors
    inputs, outputs = names
    if len(inputs) != 1 or len(outputs) != 1:
        raise BundleError(
            f"model.onnx has {len(inputs)} inputs and {len(outputs)} outputs", "only one of each is mapped"
        )
    if taken.channels % 2 == 0:
        raise BundleError(f"its network takes {taken.channels} channels", "one slice, or as many before it as after it")
    is_image = card.task == "image"
    leaving = Scale(ours.leaves.offset, ours.leaves.divisor) if is_image else Scale()
    residual_of = "image" if is_image and ours.residual else ""
    return Stage(
        _FILE,
        (TensorInput(inputs[0], "image", ours.enters, adjacent=taken.channels // 2),),
        (TensorOutput(outputs[0], next(iter(card.outputs)), leaving, residual_of),),
        halo_px=ours.halo_px,
        multiple_px=_multiple(taken),
    )


def _version(text: str) -> str:
    found = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text)
    if found is None:
        raise BundleError(f"its version is {text[:40]!r}", "write it like 0.1.0 into metadata.json")
    return f"{found[1]}.{found[2]}.{found[3] or 0}"


def _rows(tensor: _Tensor) -> tuple[int, int]:
    """What rows and columns it takes: those of the metadata, where they are two equal numbers."""
    first, second = tensor.spatial
    return (first, first) if type(first) is int and first == second and first > 0 else Envelope().rows_columns


def _multiple(tensor: _Tensor) -> int:
    """N of "N*n" or of "2**3*n"; 1 where the metadata says something else."""
    found = _MULTIPLE.fullmatch(str(tensor.spatial[0]).replace(" ", ""))
    if found is None:
        return 1
    return 2 ** int(found[2]) if found[2] else int(found[1] or found[3]) or 1


def _shape_words(tensor: _Tensor) -> tuple[str, ...]:
    shape = ", ".join(str(axis)[:20] for axis in tensor.spatial)
    if _rows(tensor) != Envelope().rows_columns or tensor.spatial[0] == "*" or _multiple(tensor) > 1:
        return ()
    return (f"its spatial shape [{shape}] was not understood: see that multiple_px and rows_columns say it",)


def _provenance(metadata: Mapping[str, Any]) -> Provenance:
    recipe = f"MONAI {_text(metadata, 'monai_version')}, PyTorch {_text(metadata, 'pytorch_version')}"
    maker = _text(metadata, "authors") or _text(metadata, "copyright") or "not stated"
    limits = (f"its images: {source}",) if (source := _text(metadata, "data_source")) else ()
    licence = _text(metadata, "license") or "not stated: see docs/license.txt of the MONAI bundle"
    return Provenance(
        maker, licence, Training(f"MONAI bundle {_text(metadata, 'version')}", recipe), limitations=limits
    )


def _as_metadata(bundle: Bundle, given_channels: int) -> dict[str, Any]:
    """`given_channels` of the network's output; 0: its file does not say."""
    card, stage = bundle.card, bundle.card.stages[0]
    (taken,), (given,) = card.inputs.values(), card.outputs.values()
    channels = sum(2 * entry.adjacent + 1 for entry in stage.inputs)
    modality = card.envelope.modalities[0] if card.envelope.modalities else "n/a"
    scale, output_scale, multiple = stage.inputs[0].scale, stage.outputs[0].scale, stage.multiple_px
    spatial = ["*", "*"] if multiple == 1 else [f"{multiple}*n", f"{multiple}*m"]
    common: dict[str, object] = {"type": "image", "modality": modality, "spatial_shape": spatial, "dtype": "float32"}
    common |= {"value_range": [], "is_patch_data": False}
    meanings, written = _meanings(given, given_channels)
    output = {"format": written, "num_channels": len(meanings)}
    seen = f"The network sees (value - {scale.offset:g}) / {scale.divisor:g}."
    seen = " ".join((seen, *_residual_words(bundle)))
    return {
        "version": card.version,
        "monai_version": "n/a",
        "pytorch_version": "n/a",
        "numpy_version": "n/a",
        "optional_packages_version": {},
        "task": card.operation,
        "description": f"{card.reference}. {seen} {card.source}".strip(),
        "authors": bundle.provenance.maker,
        "license": bundle.provenance.licence,
        "intended_use": card.intended_use,
        "data_source": "; ".join(f"{item.name} ({item.licence})" for item in bundle.provenance.data),
        _OURS: asdict(_Ours(scale, output_scale, stage.halo_px, bool(stage.outputs[0].residual_of))),
        "network_data_format": {
            "inputs": {
                "image": {
                    **common,
                    "format": _format(taken.unit),
                    "num_channels": channels,
                    "channel_def": {str(channel): "slice" for channel in range(channels)},
                }
            },
            "outputs": {
                "pred": {**common, **output, "channel_def": {str(key): text for key, text in enumerate(meanings)}}
            },
        },
    }


def _meanings(given: Port, channels: int) -> tuple[tuple[str, ...], str]:
    """What each channel of the output means, and the format of them all."""
    if given.kind != "mask":
        return ("image",), _format(given.unit)
    if channels == 1 == len(given.labels):
        return given.labels, _CLASSES
    return ("background", *given.labels), "labels"


def _channel_words(bundle: Bundle, channels: int) -> tuple[str, ...]:
    (given,) = bundle.card.outputs.values()
    if given.kind != "mask" or channels:
        return ()
    return (
        "its network does not say how many channels it gives: see that metadata.json is right to count the background",
    )


def _residual_words(bundle: Bundle) -> tuple[str, ...]:
    (output,) = bundle.card.stages[0].outputs
    return ("The network gives what is to be taken away from the image, not the image.",) if output.residual_of else ()


def _format(unit: str) -> str:
    return "hounsfield" if unit == HU else "magnitude"
