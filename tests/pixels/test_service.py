"""The pixel worker, asked as the node asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomnode.core.headers import header_of
from dicomnode.core.phantom import phantom_study
from dicomnode.core.volumes import DIGEST_KEYWORDS, source_digest
from dicomnode.errors import InputError, NotFoundError, UnsupportedError
from dicomnode.pixels.decode import decode
from dicomnode.workers import WorkerProcess
from engines.volume import load_volume
from tests.pixels.encoded import in_syntax, phantom_slice, stored
from tests.shared import shared_data

TIMEOUT_S = 60.0
MEMORY_BYTES = 2 << 30


@pytest.fixture(name="worker", scope="module")
def _worker() -> Iterator[WorkerProcess]:
    worker = WorkerProcess("dicomnode.pixels.service", MEMORY_BYTES)
    yield worker
    worker.close()


def test_headers_in_the_order_asked_and_reasons_for_the_rest(worker: WorkerProcess, tmp_path: Path) -> None:
    good = stored(tmp_path, phantom_slice())
    (bad := tmp_path / "bad").write_bytes(b"nothing")
    paths = [str(bad), str(good), str(tmp_path / "gone")]
    answer = worker.call("read_headers", TIMEOUT_S, paths=paths, keywords=["Modality", "ImageType", "AccessionNumber"])
    assert answer["headers"] == [
        {"reason": "not a DICOM file"},
        {"header": {"Modality": ["CT"], "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "AccessionNumber": ["DEMO-1"]}},
        {"reason": "a stored file is gone"},
    ]


def test_a_stack_becomes_a_volume_with_a_digest_for_each_slice(worker: WorkerProcess, tmp_path: Path) -> None:
    study = phantom_study(np.random.default_rng(1), slices=3, size=64)
    paths = [str(stored(tmp_path, dataset)) for dataset in study]
    (out := tmp_path / "out").mkdir()
    answer = worker.call("decode_stack", TIMEOUT_S, paths=paths, out=str(out))
    assert answer == {"digests": [source_digest(decode(one), header_of(one, DIGEST_KEYWORDS)) for one in study]}
    volume = load_volume(out)
    assert (volume.shape, volume.unit, volume.window) == ((3, 64, 64), "HU", (40, 400))
    assert (volume.voxels[1] == decode(study[1]) - 1024).all()


def test_one_slice_in_another_transfer_syntax_changes_nothing(worker: WorkerProcess, tmp_path: Path) -> None:
    answers = []
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"):
        (out := tmp_path / syntax).mkdir()
        path = stored(out, in_syntax(phantom_slice(), syntax))
        (volume := out / "volume").mkdir()
        answers.append(
            (worker.call("decode_stack", TIMEOUT_S, paths=[str(path)], out=str(volume)), load_volume(volume))
        )
    assert answers[0][0] == answers[1][0]
    assert (answers[0][1].voxels == answers[1][1].voxels).all()


def test_errors_keep_their_kind_and_hint(worker: WorkerProcess, tmp_path: Path) -> None:
    colour = stored(tmp_path, phantom_slice(SamplesPerPixel=3, PhotometricInterpretation="RGB"))
    with pytest.raises(UnsupportedError, match="colour") as refused:
        worker.call("decode_stack", TIMEOUT_S, paths=[str(colour)], out=str(tmp_path))
    assert refused.value.hint
    with pytest.raises(NotFoundError):
        worker.call("decode_stack", TIMEOUT_S, paths=[str(tmp_path / "gone")], out=str(tmp_path))


def test_slices_that_do_not_fit_together_are_refused(worker: WorkerProcess, tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    paths = [str(stored(tmp_path, phantom_slice(32))), str(stored(other, phantom_slice(64)))]
    with pytest.raises(InputError, match="does not fit"):
        worker.call("decode_stack", TIMEOUT_S, paths=paths, out=str(tmp_path))


def test_slabs_of_a_stack_make_the_same_volume(worker: WorkerProcess, tmp_path: Path) -> None:
    paths = [str(stored(tmp_path, dataset)) for dataset in phantom_study(np.random.default_rng(1), slices=3, size=64)]
    (whole := tmp_path / "whole").mkdir()
    (slabs := tmp_path / "slabs").mkdir()
    digests = worker.call("decode_stack", TIMEOUT_S, paths=paths, out=str(whole))["digests"]
    assert worker.call("open_stack", TIMEOUT_S, paths=paths, out=str(slabs))["shape"] == [3, 64, 64]
    later = worker.call("decode_slices", TIMEOUT_S, paths=paths[2:], out=str(slabs), begin=2)
    first = worker.call("decode_slices", TIMEOUT_S, paths=paths[:2], out=str(slabs), begin=0)
    assert [*first["digests"], *later["digests"]] == digests
    one, other = load_volume(whole), load_volume(slabs)
    assert (one.voxels == other.voxels).all() and (one.affine == other.affine).all()
    assert (one.unit, one.window) == (other.unit, other.window)


def test_a_worker_writes_nothing_of_a_data_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    worker = WorkerProcess("dicomnode.pixels.service", MEMORY_BYTES)
    broken = phantom_slice(StudyDate="SECRET-DATE", PatientName="SECRET^NAME\x1b" * 8, RescaleSlope="1.0")
    worker.call("read_headers", TIMEOUT_S, paths=[str(stored(tmp_path, broken))], keywords=["StudyDate", "PatientName"])
    worker.call("decode_stack", TIMEOUT_S, paths=[str(stored(tmp_path, broken))], out=str(tmp_path))
    worker.close()
    assert "SECRET" not in "".join(capfd.readouterr())


def test_a_tilted_scan(worker: WorkerProcess, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(shared_data("ct/dicom/head_ge").iterdir())]
    worker.call("decode_stack", TIMEOUT_S, paths=paths, out=str(tmp_path))
    volume = load_volume(tmp_path)
    assert volume.shape == (28, 512, 512)
    assert volume.valid is not None
    assert volume.voxels[~volume.valid].max() == -1500
    assert volume.affine[:3, 2] == pytest.approx([0, 0, 4.22])
