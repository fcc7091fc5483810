"""ONNX Runtime on the processor, and on a GPU where there is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dicomnode.testing.runtimes import RuntimeContract
from engines.errors import RuntimeFailedError
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.devices import cuda_devices, cuda_index
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.openvino import OpenVino
from engines.runtimes.processor import Processor


class TestProcessor(RuntimeContract):
    runtime = OnnxRuntime()


class TestCuda(RuntimeContract):
    runtime = OnnxRuntime()
    device = "cuda:0"


@pytest.mark.parametrize(
    ("library", "runtime"), [("onnxruntime", OnnxRuntime()), ("openvino", OpenVino(Processor(cores=1)))]
)
def test_a_library_that_is_not_installed_is_named_with_the_way_to_it(
    library: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert f"pip install {library}" in runtime.unavailable("cpu")
    with pytest.raises(RuntimeFailedError) as failed:
        runtime.open(tmp_path / "network.onnx", Resources())
    assert f"pip install {library}" in failed.value.hint


def test_devices_are_counted_by_their_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert cuda_devices(tmp_path) == 2
    assert cuda_devices(tmp_path / "absent") == 0
    assert cuda_index("cuda:12") == 12
    for name in ("cuda", "cuda:", "cuda:-1", "gpu:0", "cpu", "cuda:1234"):
        with pytest.raises(RuntimeFailedError):
            cuda_index(name)
