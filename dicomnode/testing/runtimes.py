"""What every runtime of the engines must do: a class of tests that the test of each runtime inherits. Needs pytest.

    class TestMyRuntime(RuntimeContract):
        runtime = MyRuntime()
        precision = "float32"
        largest_difference = 1e-4

What a network gives is held against `onnx.reference`, the plain numpy of those who define ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from dicomnode.testing import networks
from engines.card import Precision
from engines.errors import EngineError, EngineInputError, RuntimeFailedError
from engines.runtimes.base import Resources, Runtime, Session, Tensors

Image = NDArray[np.float32]

NETWORKS: Final = {
    "one output": networks.denoiser(channels=8, layers=3),
    "wide dilated layers": networks.dilated_denoiser(channels=8),
    "adjacent slices": networks.adjacent_denoiser(),
    "two outputs": networks.two_outputs(),
    "another grid": networks.super_resolver(factor=2),
    "three inputs": networks.segmenter(inputs=3),
    "boxes": networks.detector(),
    "numbers": networks.predictor(),
}
"""By what is special about each. Values are HU / 1000."""

_BROKEN: Final = {"empty": b"", "no model": b"x" * 4096, "cut off": NETWORKS["one output"][:-200]}


def image(batch: int = 1, rows: int = 32, columns: int = 48, channels: int = 1, seed: int = 0) -> Image:
    """Values like those of CT slices / 1000: a body in air, and noise."""
    draws = np.random.default_rng([seed, batch, rows, columns, channels])
    down, across = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    body = np.where(down**2 + across**2 < 0.8, 0.04, -1.0)
    noise = draws.normal(0.0, 0.02, (batch, channels, rows, columns))
    return (body + noise).astype(np.float32)


class RuntimeContract:
    """`largest_difference`: of a value from what the reference gives, where the largest value that goes in or comes out
    is 1. What a network subtracts from its input is as wrong as the input is coarse."""

    runtime: ClassVar[Runtime]
    device: ClassVar[str] = "cpu"
    precision: ClassVar[Precision] = "float32"
    largest_difference: ClassVar[float] = 1e-4

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        missing = self.runtime.unavailable(self.device)
        if missing:
            pytest.skip(missing)

    @pytest.fixture
    def resources(self) -> Resources:
        return Resources(self.device, threads=1, precision=self.precision)

    @pytest.fixture
    def session(self, tmp_path: Path, resources: Resources) -> Iterator[Session]:
        opened = self.open(tmp_path, NETWORKS["one output"], resources)
        yield opened
        opened.close()

    def open(self, folder: Path, network: bytes, resources: Resources) -> Session:
        path = folder / "network.onnx"
        path.write_bytes(network)
        return self.runtime.open(path, resources)

    def assert_near(self, found: Tensors, expected: Tensors) -> None:
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert found[name].shape == values.shape
            assert found[name].dtype == np.float32
            scale = max(float(np.abs(values).max()), 1.0)  # inputs go to about -1
            assert np.abs(found[name] - values).max() <= self.largest_difference * scale, name

    # What is computed

    @pytest.mark.parametrize("network", NETWORKS)
    def test_it_gives_what_the_reference_gives(self, network: str, tmp_path: Path, resources: Resources) -> None:
        session = self.open(tmp_path, NETWORKS[network], resources)
        given = {"image": image(channels=channels(NETWORKS[network]))}
        self.assert_near(session.run(given), reference(NETWORKS[network], given))
        session.close()

    def test_any_batch_gives_what_its_slices_give(self, session: Session) -> None:
        whole = image(batch=5)
        alone = [session.run({"image": whole[index : index + 1]})["residual"] for index in range(5)]
        for count in (5, 1, 2, 4):
            self.assert_near(session.run({"image": whole[:count]}), {"residual": np.concatenate(alone[:count])})

    def test_any_rows_and_columns_in_any_order(self, tmp_path: Path, resources: Resources) -> None:
        session = self.open(tmp_path, NETWORKS["two outputs"], resources)
        for rows, columns in ((33, 47), (16, 16), (1, 1), (33, 47), (7, 130)):
            given = {"image": image(rows=rows, columns=columns)}
            self.assert_near(session.run(given), reference(NETWORKS["two outputs"], given))
        session.close()

    def test_the_same_bits_again(self, session: Session) -> None:
        given = {"image": image(batch=2)}
        first = session.run(given)["residual"].copy()
        session.run({"image": image(batch=3, seed=1)})
        assert np.array_equal(session.run(given)["residual"], first)

    def test_the_same_bits_from_another_session(self, tmp_path: Path, session: Session, resources: Resources) -> None:
        other = self.open(tmp_path, NETWORKS["one output"], resources)
        assert np.array_equal(session.run({"image": image()})["residual"], other.run({"image": image()})["residual"])
        other.close()

    def test_the_same_on_more_threads(self, tmp_path: Path, session: Session, resources: Resources) -> None:
        other = self.open(tmp_path, NETWORKS["one output"], replace(resources, threads=2))
        self.assert_near(other.run({"image": image(batch=3)}), session.run({"image": image(batch=3)}))
        other.close()

    # What goes in and what comes out belongs to the caller

    def test_it_alters_no_input_and_takes_what_is_read_only(self, session: Session) -> None:
        given = image()
        kept = given.copy()
        given.setflags(write=False)
        session.run({"image": given})
        assert np.array_equal(given, kept)

    def test_it_takes_views_that_are_not_contiguous(self, session: Session) -> None:
        whole = image(batch=4, rows=64)
        view = whole[::2, :, ::2, ::-1]
        self.assert_near(session.run({"image": view}), session.run({"image": view.copy()}))

    def test_later_runs_leave_what_was_given_before(self, session: Session) -> None:
        first = session.run({"image": image()})["residual"]
        kept = first.copy()
        session.run({"image": image(seed=1)})
        assert np.array_equal(first, kept)

    def test_it_says_nothing_on_stdout(
        self, tmp_path: Path, resources: Resources, capfd: pytest.CaptureFixture[str]
    ) -> None:
        session = self.open(tmp_path, NETWORKS["two outputs"], resources)
        session.run({"image": image()})
        session.close()
        assert capfd.readouterr().out == ""

    # What it refuses

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"picture": image()},
            {"image": image(), "mask": image()},
            {"image": image(channels=2)},
            {"image": image()[0]},
            {"image": image()[:0]},
            {"image": image().astype(np.float64)},
        ],
        ids=["nothing", "another name", "one too many", "channels", "axes", "empty", "float64"],
    )
    def test_it_refuses_what_the_network_does_not_take(self, given: dict[str, Any], session: Session) -> None:
        with pytest.raises(EngineInputError) as refused:
            session.run(given)
        assert refused.value.hint
        assert session.run({"image": image()})["residual"].shape == image().shape

    def test_a_shape_that_cannot_be_computed_fails_alone(self, session: Session) -> None:
        """It halves rows and columns: what is odd cannot be told from the file's inputs."""
        with pytest.raises(EngineError):
            session.run({"image": image(rows=33)})
        assert session.run({"image": image()})["residual"].shape == image().shape

    @pytest.mark.parametrize("broken", _BROKEN)
    def test_it_refuses_a_broken_file(self, broken: str, tmp_path: Path, resources: Resources) -> None:
        with pytest.raises(RuntimeFailedError) as failed:
            self.open(tmp_path, _BROKEN[broken], resources)
        assert failed.value.hint
        assert "\n" not in str(failed.value)

    def test_it_refuses_a_file_that_is_not_there(self, tmp_path: Path, resources: Resources) -> None:
        with pytest.raises(RuntimeFailedError):
            self.runtime.open(tmp_path / "absent.onnx", resources)

    def test_it_refuses_a_device_that_is_not_there(self, tmp_path: Path, resources: Resources) -> None:
        with pytest.raises(RuntimeFailedError) as failed:
            self.open(tmp_path, NETWORKS["one output"], replace(resources, device="cuda:99"))
        assert failed.value.hint

    def test_it_refuses_what_it_does_not_compute_in(self, tmp_path: Path, resources: Resources) -> None:
        for precision in ("float32", "bfloat16", "float16", "int8"):
            if precision not in self.runtime.precisions(self.device):
                with pytest.raises(RuntimeFailedError):
                    self.open(tmp_path, NETWORKS["one output"], replace(resources, precision=precision))

    # Its life

    def test_its_identity_names_runtime_version_and_precision(self, session: Session) -> None:
        assert re.fullmatch(rf"{self.runtime.name}(-cuda)?-\d+\.\d+/{self.precision}", session.identity)

    def test_two_sessions_at_once(self, tmp_path: Path, session: Session, resources: Resources) -> None:
        other = self.open(tmp_path, NETWORKS["two outputs"], resources)
        expected = [one.run({"image": image()})["residual"].copy() for one in (session, other)]
        with ThreadPoolExecutor(2) as threads:
            for _ in range(3):
                both = threads.map(lambda one: one.run({"image": image()})["residual"], (session, other))
                assert all(map(np.array_equal, both, expected))
        other.close()

    def test_closed_is_closed(self, session: Session) -> None:
        session.close()
        session.close()
        with pytest.raises(RuntimeFailedError):
            session.run({"image": image()})
        assert session.identity

    def test_a_cache_changes_nothing_but_time(self, tmp_path: Path, session: Session, resources: Resources) -> None:
        cache = tmp_path / "cache"
        cache.mkdir()
        given = {"image": image(batch=2)}
        expected = session.run(given)["residual"]
        for _ in range(2):
            cached = self.open(tmp_path, NETWORKS["one output"], replace(resources, cache=cache))
            assert np.array_equal(cached.run(given)["residual"], expected)
            cached.close()


def reference(network: bytes, tensors: Tensors) -> Tensors:
    """What the network gives by `onnx.reference`."""
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(network))
    values = evaluator.run(None, dict(tensors))
    return dict(zip(evaluator.output_names, values, strict=True))


def channels(network: bytes) -> int:
    """Of its one input."""
    shape = onnx.load_model_from_string(network).graph.input[0].type.tensor_type.shape
    return int(shape.dim[1].dim_value)
