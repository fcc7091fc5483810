"""Golden tests of every shape of bundle hold in every runtime and precision of this machine, and on other processors.

What another processor would compute is had from OpenVINO by forbidding it the newer instructions of this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from dicomnode.testing.bundles import Shape, made_bundle
from engines.bundle.folder import Bundle, golden, load_bundle
from engines.bundle.golden import Difference, compare
from engines.card import Precision
from engines.model.engine import ModelEngine
from engines.runtimes.base import Resources, Runtime
from engines.runtimes.choice import onnx_runtimes
from engines.runtimes.openvino import OpenVino
from engines.runtimes.processor import this_processor

SHAPES = get_args(Shape)
OLDER: dict[str, Precision] = {"AVX2": "float32", "AVX512_CORE": "bfloat16"}
"""Instruction sets by oneDNN's names, and what is computed with them. The second has no bfloat16 of its own."""


@pytest.fixture(name="bundles", scope="module")
def _bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for shape in SHAPES:
        (folder / shape).mkdir()
        made_bundle(folder / shape, shape)
    return folder


def differences(bundle: Bundle, runtime: Runtime, precision: Precision) -> tuple[Difference, ...]:
    test = golden(bundle)
    engine = ModelEngine.open(bundle, partial(runtime.open, resources=Resources(precision=precision)))
    try:
        return compare(test, precision, engine.run(test.inputs, engine.card.resolve(test.settings)))
    finally:
        engine.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_on_this_machine(shape: Shape, bundles: Path) -> None:
    bundle = load_bundle(bundles / shape)
    for runtime in onnx_runtimes():
        for precision in set(runtime.precisions("cpu")) & set(bundle.card.precisions):
            found = differences(bundle, runtime, precision)
            assert all(one.passed for one in found), (runtime.name, precision, *map(str, found))


@pytest.mark.skipif(
    not this_processor().bfloat16, reason="needs a processor with AMX or AVX512-BF16 to be an older one"
)
@pytest.mark.parametrize("instructions", OLDER)
def test_on_an_older_processor(instructions: str, bundles: Path) -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    program = [sys.executable, __file__, str(bundles), OLDER[instructions]]
    answer = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert len(answer.stdout.splitlines()) >= len(SHAPES)
    assert "FAILED" not in answer.stdout


def main() -> None:
    folder, precision = Path(sys.argv[1]), next(one for one in get_args(Precision) if one == sys.argv[2])
    for shape in SHAPES:
        for found in differences(load_bundle(folder / shape), OpenVino(this_processor()), precision):
            print(shape, found, "" if found.passed else "FAILED")


if __name__ == "__main__":
    main()
