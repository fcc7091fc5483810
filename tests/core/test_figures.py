"""The figures that are kept, and by what they are grouped: flat numbers, and no text of a data set."""

from __future__ import annotations

import json
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.core.figures import FIGURES, TRENDED, figures_of, shown
from dicomnode.core.scanners import Lineage, device_of, preset_of, protocol_of
from engines import quality
from engines.volume import HU, Volume

_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def test_a_real_report_gives_its_figures() -> None:
    noise = np.random.default_rng(1)
    before = noise.normal(0, 20, (3, 64, 64)).astype(np.float32)
    volumes = [Volume(voxels, np.diag([2.0, 0.7, 0.7, 1.0]), HU) for voxels in (before, before * np.float32(0.5))]
    found = figures_of(json.loads(json.dumps(quality.measure(*volumes).as_json())))
    assert 0.4 < found["noise_ratio"] < 0.6
    assert found["noise_before"] > found["noise_after"] > 0
    assert list(found) == [name for name in FIGURES if name in found]


def test_what_is_no_number_is_no_figure() -> None:
    odd = {"noise_before": None, "noise_after": "5", "bias_hu": [1], "slice_fit": True, "edge_modulation": float("nan")}
    assert figures_of(odd) == {}
    assert figures_of({"noise_before": 0.0, "noise_after": 1.0}) == {"noise_before": 0.0, "noise_after": 1.0}


def test_a_figure_is_shown_with_its_unit() -> None:
    assert shown("edge_width_before", 1.23456) == "width of edges before 1.235 px"
    assert set(TRENDED) <= set(FIGURES)


@given(_TEXT, _TEXT, _TEXT)
def test_no_text_of_a_data_set_is_in_a_key(maker: str, serial: str, protocol: str) -> None:
    header = {
        "Modality": ("CT",), "KVP": ("120",), "SliceThickness": ("1.50",), "Manufacturer": (maker,),
        "DeviceSerialNumber": (serial,), "ProtocolName": (protocol,), "ConvolutionKernel": ("B30f",),
    }  # fmt: skip
    lineage = Lineage("ct1", device_of(header), protocol_of(header), "ct-denoise@1.0.0")
    assert set(lineage.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-./@CTV")
    assert lineage.protocol.startswith("CT-120kV-1.5mm-")


def test_devices_and_protocols_are_told_apart() -> None:
    header = {"Modality": ("CT",), "DeviceSerialNumber": ("1",), "ConvolutionKernel": ("B30f",)}
    assert device_of(header) != device_of({**header, "DeviceSerialNumber": ("2",)})
    assert device_of(header) == device_of({**header, "DeviceSerialNumber": (" 1 ",)})
    assert protocol_of(header) != protocol_of({**header, "ConvolutionKernel": ("B60f",)})
    assert (device_of({}), protocol_of({})) == ("unknown", "other")
    assert protocol_of({"Modality": ("DOE^JANE",), "KVP": ("1e9",)}) == "other"


def test_a_preset_is_one_plain_word() -> None:
    assert preset_of({}) == ""
    assert preset_of({"strength": 0.5, "mode": "soft", "passes": 2}) == "mode=soft+passes=2+strength=0.5"
    hostile = preset_of({"mode": "a/b\n DROP"})
    assert re.fullmatch(r"mode=[0-9a-f]{8}", hostile)
    assert Lineage("", "d", "p", "e@1.0.0", "strength=0.5").key == "-/d/p/e@1.0.0+strength=0.5"
