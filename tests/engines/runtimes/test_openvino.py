"""OpenVINO in float32, and in bfloat16 where the processor has it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from dicomnode.testing import networks
from dicomnode.testing.runtimes import NETWORKS, RuntimeContract, image
from engines.card import Precision
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Resources
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.openvino import OpenVino
from engines.runtimes.processor import Processor, this_processor

PROCESSOR = this_processor()


class TestFloat32(RuntimeContract):
    runtime = OpenVino(PROCESSOR)


@pytest.mark.skipif(not PROCESSOR.bfloat16, reason="needs a processor with AMX or AVX512-BF16")
class TestBfloat16(RuntimeContract):
    runtime = OpenVino(PROCESSOR)
    precision: ClassVar[Precision] = "bfloat16"
    largest_difference = 0.008  # bfloat16 has 8 bits: 1 is followed by 1.0078


def written(folder: Path, network: bytes) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(network)
    return path


@pytest.mark.parametrize("network", ["one output", "wide dilated layers", "two outputs"])
def test_float32_is_what_onnx_runtime_gives(network: str, tmp_path: Path) -> None:
    path = written(tmp_path, NETWORKS[network])
    given = {"image": image(batch=2, rows=96, columns=160)}
    one, other = (runtime.open(path, Resources(threads=2)) for runtime in (OpenVino(PROCESSOR), OnnxRuntime()))
    found, expected = one.run(given), other.run(given)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() < 2e-5  # 0.02 HU


def test_int8_is_said_where_a_network_is_quantised_and_only_there(tmp_path: Path) -> None:
    runtime, resources = OpenVino(PROCESSOR), Resources(precision="int8")
    session = runtime.open(written(tmp_path, networks.quantised()), resources)
    assert session.identity.endswith("/int8")
    assert session.run({"image": image()})["rounded"][0, 0, 0, 0] == -1.0
    with pytest.raises(RuntimeFailedError, match="is quantised"):
        runtime.open(written(tmp_path, networks.quantised()), Resources())
    with pytest.raises(RuntimeFailedError, match="not quantised"):
        runtime.open(written(tmp_path, NETWORKS["one output"]), resources)


def test_a_processor_without_bfloat16_is_not_asked_for_it(tmp_path: Path) -> None:
    runtime = OpenVino(Processor(cores=2))
    assert "bfloat16" not in runtime.precisions("cpu")
    with pytest.raises(RuntimeFailedError, match="bfloat16"):
        runtime.open(written(tmp_path, NETWORKS["one output"]), Resources(precision="bfloat16"))


def test_the_second_opening_finds_what_was_compiled(tmp_path: Path) -> None:
    path = written(tmp_path, NETWORKS["two outputs"])
    cache = tmp_path / "cache"
    cache.mkdir()
    resources = Resources(cache=cache)
    OpenVino(PROCESSOR).open(path, resources).close()
    kept = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert kept
    OpenVino(PROCESSOR).open(path, resources).close()
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == kept
    OpenVino(PROCESSOR).open(path, replace(resources, threads=2)).close()
    assert kept.keys() <= set(cache.iterdir())


def test_it_tells_its_makers_nothing(tmp_path: Path) -> None:
    """It would write an identifier into the home folder, and send it."""
    program = (
        "from engines.runtimes.openvino import OpenVino; from engines.runtimes.processor import this_processor\n"
        "assert OpenVino(this_processor()).unavailable('cpu') == ''\n"
        "import sys; assert sys.modules['openvino_telemetry'] is None and 'openvino' in sys.modules"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert answer.stdout == b""
    assert list(tmp_path.iterdir()) == []
