"""MONAI bundles: what maps, what is refused, and what is said to be missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.helper import make_attribute

from dicomnode.errors import WorkerError
from dicomnode.operations.monai import import_from_monai
from dicomnode.testing import networks
from dicomnode.testing.bundles import made_bundle
from engines.bundle.folder import Bundle, golden, load_bundle
from engines.bundle.monai import METADATA, NETWORK, export_monai, import_monai
from engines.card import Scale
from engines.errors import BundleError, EngineError, RuntimeFailedError
from tests.engines.greedy import greedy

KILO = Scale(divisor=1000.0)


def metadata(**changes: Any) -> dict[str, Any]:
    """As the specification's example, of a network over slices."""
    tensor = {"type": "image", "spatial_shape": ["16*n", "16*n"], "dtype": "float32", "value_range": [0, 1]}
    taken = {**tensor, "format": "hounsfield", "modality": "CT", "num_channels": 1, "channel_def": {"0": "image"}}
    given_ = {**tensor, "format": "labels", "num_channels": 3, "channel_def": {"0": "background", "1": "liver"}}
    whole = {
        "version": "0.1.0",
        "monai_version": "1.3.0",
        "pytorch_version": "2.1.0",
        "task": "Liver segmentation",
        "authors": "Somebody",
        "network_data_format": {"inputs": {"image": taken}, "outputs": {"pred": given_}},
    }
    return {**whole, **changes}


def monai_bundle(folder: Path, content: object, network: bytes) -> Path:
    for path, written in ((METADATA, json.dumps(content).encode()), (NETWORK, network)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(written)
    return folder


def test_a_segmentation_of_slices_maps(tmp_path: Path) -> None:
    source = monai_bundle(tmp_path / "monai", metadata(), networks.segmenter(inputs=1))
    converted = import_from_monai(source, tmp_path / "ours", "ct-liver", KILO)
    bundle = load_bundle(tmp_path / "ours")
    assert converted.engine == bundle.card.reference == "ct-liver@0.1.0"
    assert (bundle.card.task, bundle.card.outputs["mask"].labels) == ("segment", ("liver", "channel 2"))
    assert bundle.card.inputs["image"].unit == "HU"
    assert bundle.card.stages[0].multiple_px == 16
    assert bundle.card.stages[0].inputs[0].scale == KILO
    assert (bundle.provenance.maker, bundle.card.envelope.modalities) == ("Somebody", ("CT",))
    assert "mask" in golden(bundle).outputs
    assert any("transforms" in sentence for sentence in converted.lost)


def test_a_network_that_asks_for_all_memory_is_an_error(tmp_path: Path) -> None:
    source = monai_bundle(tmp_path / "monai", metadata(), greedy(networks.segmenter(inputs=1)))
    with pytest.raises((WorkerError, RuntimeFailedError)) as failed:
        import_from_monai(source, tmp_path / "ours", "ct-liver", KILO)
    assert failed.value.hint
    assert list((tmp_path / "ours").iterdir()) == []


def test_an_export_maps_back(tmp_path: Path) -> None:
    for folder in ("ours", "monai", "again"):
        (tmp_path / folder).mkdir()
    bundle = made_bundle(tmp_path / "ours", "super-resolution")
    with pytest.raises(BundleError, match="no place in a MONAI bundle"):
        export_monai(bundle, tmp_path / "monai")
    bundle = made_bundle(tmp_path / "again", "adjacent")
    lost = export_monai(bundle, tmp_path / "monai")
    assert any("model.pt" in sentence for sentence in lost)
    assert "taken away" in lost[0]
    assert lost[0] in json.loads((tmp_path / "monai" / METADATA).read_text())["description"]
    back = import_monai(tmp_path / "monai", "random-adjacent")
    assert (back.card.stages[0], back.provenance.licence) == (
        replace(bundle.card.stages[0], file="model.onnx"),
        bundle.provenance.licence,
    )
    assert back.network == bundle.networks[0].read_bytes()
    assert (back.card.task, back.card.inputs, back.card.version) == ("image", bundle.card.inputs, bundle.card.version)
    (taken,), (ours,) = back.card.stages[0].inputs, bundle.card.stages[0].inputs
    assert (taken.tensor, taken.adjacent) == (ours.tensor, ours.adjacent)


@pytest.mark.parametrize(
    ("shape", "channels", "written"),
    [
        (["batch", 1, "rows", "columns"], ["lesion"], "classes"),
        (["batch", 2, "rows", "columns"], ["background", "lesion"], "labels"),
        (["batch", None, "rows", "columns"], ["background", "lesion"], "labels"),
    ],
)
def test_an_export_claims_the_channels_that_the_network_gives(
    tmp_path: Path, shape: list[str | int | None], channels: list[str], written: str
) -> None:
    source = monai_bundle(tmp_path / "monai", metadata(), _one_label(shape))
    content = metadata()
    _tensor("outputs", num_channels=2, channel_def={"0": "background", "1": "lesion"})(content)
    found = import_monai(monai_bundle(source, content, _one_label(shape)), "ct-lesion", KILO)
    stage = found.card.stages[0]
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / stage.file).write_bytes(found.network)
    (tmp_path / "ours" / "CARD.md").write_text("words")
    bundle = Bundle(tmp_path / "ours", found.card, found.provenance, "0a" * 32, None)
    (tmp_path / "out").mkdir()
    lost = export_monai(bundle, tmp_path / "out")
    given = json.loads((tmp_path / "out" / METADATA).read_text())["network_data_format"]["outputs"]["pred"]
    assert (given["num_channels"], given["format"]) == (len(channels), written)
    assert given["channel_def"] == {str(index): name for index, name in enumerate(channels)}
    assert any("does not say how many channels" in sentence for sentence in lost) == (shape[1] is None)


def _one_label(shape: list[str | int | None]) -> bytes:
    """A network that calls its output so large, whatever it computes."""
    model = onnx.load_model_from_string(networks.segmenter(inputs=1, thresholds=(0.1,)))
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape)
    model.graph.output[0].type.CopyFrom(kind)
    return bytes(model.SerializeToString())


def test_a_halo_is_filled_in_and_an_assumed_scale_is_told_of(tmp_path: Path) -> None:
    source = monai_bundle(tmp_path, metadata(), networks.segmenter(inputs=1))
    found = import_monai(source, "ct-liver")
    assert (found.card.stages[0].halo_px, found.card.stages[0].inputs[0].scale) == (2, Scale())
    assert "no --divisor was given" in found.unmapped[0]
    assert not any("--divisor was" in sentence for sentence in import_monai(source, "ct-liver", KILO).unmapped)


@pytest.mark.parametrize(
    "ours", [3, {"halo_px": -1}, {"enters": {"divisor": 0}}, {"enters": {"clip": [2, 1]}}, {"x": 1}]
)
def test_what_is_wrong_under_our_own_key_is_refused(tmp_path: Path, ours: object) -> None:
    source = monai_bundle(tmp_path, metadata(dicomnode=ours), networks.segmenter(inputs=1))
    with pytest.raises(BundleError) as error:
        import_monai(source, "ct-liver")
    assert error.value.hint


def _tensor(place: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for tensor in content["network_data_format"][place].values():
            tensor.update(changes)

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_tensor("inputs", spatial_shape=[96, 96, 96]), "3 axes"),
        (_tensor("inputs", dtype="int32"), "dtype"),
        (_tensor("inputs", format="kspace"), "kspace"),
        (_tensor("inputs", num_channels=2), "2 channels"),
        (_tensor("outputs", format="points"), "points"),
        (_tensor("outputs", num_channels=True), "num_channels"),
        (lambda content: content.pop("network_data_format"), "network_data_format"),
        (lambda content: content["network_data_format"]["inputs"].clear(), "0 inputs"),
        (lambda content: content.update(version="newest"), "version"),
    ],
)
def test_what_does_not_map_is_refused(tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], message: str) -> None:
    content = metadata()
    spoil(content)
    with pytest.raises(BundleError) as error:
        import_monai(monai_bundle(tmp_path, content, networks.segmenter(inputs=1)), "ct-liver", KILO)
    assert message in str(error.value)
    assert error.value.hint


def test_a_network_that_no_bundle_may_have_is_not_opened(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(networks.segmenter(inputs=1))
    model.graph.node.add(op_type="RandomNormal", output=["noise"]).attribute.append(make_attribute("shape", [1]))
    with pytest.raises(BundleError, match="draws numbers"):
        import_monai(monai_bundle(tmp_path, metadata(), model.SerializeToString()), "ct-liver", KILO)


def test_without_an_onnx_file_nothing_is_imported(tmp_path: Path) -> None:
    source = monai_bundle(tmp_path, metadata(), b"")
    (source / NETWORK).unlink()
    (source / NETWORK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="model.onnx cannot be read"):  # noqa: RUF043
        import_monai(source, "ct-liver", KILO)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=8), PLAIN, max_size=3)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["format", "modality", "num_channels", "spatial_shape", "dtype", "channel_def"]), value=JSON,
       place=st.sampled_from(["inputs", "outputs"]))  # fmt: skip
def test_hostile_metadata_is_refused_or_read(tmp_path: Path, key: str, value: object, place: str) -> None:
    content = metadata()
    _tensor(place, **{key: value})(content)
    try:
        import_monai(monai_bundle(tmp_path, content, networks.segmenter(inputs=1)), "ct-liver", KILO)
    except EngineError as error:
        assert error.hint
