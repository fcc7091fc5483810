"""Two machines that share a database and a bucket, and no file system: one receives and sends, the other enhances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc
from dicomnode.testing.processes import wait_until
from dicomnode.testing.s3 import new_bucket, s3_server
from dicomnode.testing.sender import RawObject, send_verbatim
from tests.end_to_end.observation import TIMEOUT_S
from tests.end_to_end.studies import phantom_series

RULE = {"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}
SLICES = 4


@pytest.mark.peer("postgresql")
@pytest.mark.peer("orthanc")
def test_what_one_machine_receives_another_enhances_through_the_bucket(
    tmp_path: Path, pacs: Orthanc, new_postgresql_url: Callable[[], str]
) -> None:
    sent = [RawObject.read(path) for path in phantom_series(tmp_path / "scanner", slices=SLICES)]
    server = make_url(new_postgresql_url()).set(drivername="postgresql").render_as_string(hide_password=False)
    with s3_server() as endpoint:
        address = new_bucket(endpoint, "hospital")
        bucket = {
            "url": address.url, "endpoint": endpoint, "access_key": address.access_key,
            "secret_key": address.secret_key, "cache": "10 MB",
        }  # fmt: skip
        front, back = (
            settings(
                {"pacs": pacs}, [RULE], node={"name": name, "database": server, "durability": "process"}, bucket=bucket
            )
            for name in ("front", "back")
        )
        receiver = Node(tmp_path / "front", front, only="receive,deliver")
        enhancer = Node(tmp_path / "back", back, only="route,enhance,derive")
        with receiver, enhancer:
            assert list(send_verbatim(receiver.call(), sent).values()) == [0] * SLICES
            wait_until(lambda: len(pacs.sop_instance_uids()) == 2 * SLICES, TIMEOUT_S, "the PACS held everything")
            assert enhancer.stop() == 0
            assert receiver.stop() == 0
        assert not list(tmp_path.glob("*/data/results/*")), "what was derived needs its result no longer"
    assert "bucket failed" not in receiver.log() + enhancer.log()
