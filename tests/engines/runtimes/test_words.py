"""What libraries say, as a person who runs a node is told it."""

from __future__ import annotations

import pytest

from engines.runtimes.words import said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (  # OpenVINO 2025
            "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed at "
            "src/frontends/common_translators/src/unconverted_ops_report.cpp:151:\nFrontEnd API failed with "
            "OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n-- No conversion rule found for operations"
            ": Nope-17\n\n",
            "Model wasn't fully converted. Summary: -- No conversion rule found for operations: Nope-17",
        ),
        (
            "Exception from src/inference/src/cpp/infer_request.cpp:224:\nException from "
            "src/plugins/intel_cpu/src/node.cpp:794:\n[CPU] MatMul node with name 'y' Check 'k_lhs == k_rhs' failed at "
            "src/plugins/intel_cpu/src/shape_inference/custom/matmul.cpp:45:\nMatmul input shapes are incompatible "
            "shape A: (2.3) shape B: (2.3)\n\n\n",
            "[CPU] MatMul node with name 'y' Matmul input shapes are incompatible shape A: (2.3) shape B: (2.3)",
        ),
        (
            "Check 'file_exists(path)' failed at src/frontend.cpp:117:\nonnx: Could not open the file: "
            '"/srv/engines/a/1.0.0/denoise.onnx"\n',
            'onnx: Could not open the file: "denoise.onnx"',
        ),
        (  # ONNX Runtime 1.2x
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status "
            "Message: matmul_helper.h:59 Compute MatMul dimension mismatch",
            "FAIL : Non-zero status code returned while running MatMul node. Name:'' Status Message: Compute MatMul "
            "dimension mismatch",
        ),
        ("Exception from src/core.cpp:84:\n", "RuntimeError"),
        ("a 1 x 2/3 b", "a 1 x 2/3 b"),
        ("n" * 300, "n" * 200 + "..."),
    ],
)
def test_words_come_without_places_in_a_librarys_source(text: str, told: str) -> None:
    assert said(RuntimeError(text)) == told
