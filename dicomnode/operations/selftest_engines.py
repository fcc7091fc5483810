"""engines selftest: what of TensorRT works on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dicomnode.operations.terminal import printable_lines
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.tensorrt.runtime import on_device
from engines.runtimes.tensorrt.selftest import Step, run_steps


@dataclass(frozen=True)
class SelfTest:
    """What was looked at on a device, in order."""

    device: str
    steps: tuple[Step, ...]

    @property
    def failed(self) -> bool:
        return not all(step.passed for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": not self.failed}

    def lines(self) -> Sequence[str]:
        return printable_lines(line for step in self.steps for line in _step_lines(step))


def selftest(device: str) -> SelfTest:
    """Try everything that the TensorRT runtime does, with a small made network. Takes minutes on a GPU."""
    return SelfTest(device, run_steps(lambda: on_device(device), device, OnnxRuntime()))


def _step_lines(step: Step) -> Sequence[str]:
    line = f"{'ok' if step.passed else 'FAILED':<7} {step.name}: {step.found}"
    return (line,) if step.passed else (line, f"   next: {step.next_step}")
