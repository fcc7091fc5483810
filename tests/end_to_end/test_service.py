"""The node as a service and its commands, as an administrator uses them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dicomnode.testing.node import Node, settings
from dicomnode.testing.peers import Orthanc, StoreScp
from dicomnode.testing.processes import free_port
from dicomnode.testing.sender import RawObject, echo, send_verbatim
from tests.end_to_end.observation import wait_for_instances
from tests.end_to_end.studies import phantom_series

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))
RULES = [{"name": "denoise", "match": {"Modality": "CT"}, "engines": ["ct-nlm"], "send": ["pacs"]}]


def dicomnode(*arguments: str | Path, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomnode", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, input=text, capture_output=True, text=True, timeout=120, check=False)


def test_it_starts_and_stops_cleanly(tmp_path: Path) -> None:
    with Node(tmp_path, settings({}, [])) as node:
        assert echo(node.call())
        node.wait_for_log("node_started")
        assert node.stop() == 0
        assert not echo(node.call())
        assert "node_stopped" in node.log()
        assert "thread_failed" not in node.log()
        node.start()
        assert echo(node.call())


@pytest.mark.peer("dcmtk")
def test_a_reload_uses_the_changed_rules(tmp_path: Path, archive: StoreScp) -> None:
    sent = RawObject.read(CT_SMALL)
    rule = {"name": "nothing", "match": {"Modality": "MR"}, "send": ["archive"]}
    with Node(tmp_path / "node", settings({"archive": archive}, [rule])) as node:
        assert set(send_verbatim(node.call(), [sent]).values()) == {0}
        node.wait_until_idle()
        assert list(archive.files.iterdir()) == []
        node.configure(settings({"archive": archive}, [{**rule, "match": {"Modality": "CT"}}]))
        node.reload()
        node.wait_for_log("config_applied", times=4)
        other = RawObject.read(with_another_uid(CT_SMALL, tmp_path))
        assert set(send_verbatim(node.call(), [other]).values()) == {0}
        node.wait_until_idle()
        assert len(list(archive.files.iterdir())) == 1


def with_another_uid(path: Path, folder: Path) -> Path:
    dataset = dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.save_as(folder / "other.dcm")
    return folder / "other.dcm"


def test_a_reload_with_a_mistake_keeps_the_old_configuration(tmp_path: Path) -> None:
    tree = settings({}, [])
    with Node(tmp_path, tree) as node:
        node.configure({**tree, "limits": {"asociations": 1}})
        node.reload()
        node.wait_for_log("config_rejected")
        assert "associations" in node.log(), "the log says what was meant"
        assert echo(node.call())
        node.configure(tree)
        assert node.stop() == 0


def test_a_wrong_configuration_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "dicomnode.toml").write_text("[node]\nporrt = 104\n")
    answer = dicomnode("serve", cwd=tmp_path)
    assert answer.returncode != 0
    assert "porrt" in answer.stderr
    assert "port" in answer.stderr


@pytest.mark.peer("orthanc")
def test_the_commands_tell_what_happened(tmp_path: Path, pacs: Orthanc) -> None:
    files = phantom_series(tmp_path / "scanner", slices=3)
    sent = [RawObject.read(path) for path in files]
    first = dcmread(files[0])
    with Node(tmp_path / "node", settings({"pacs": pacs}, RULES)) as node:
        assert node.command("check").returncode == 0
        assert node.command("echo", "pacs").returncode == 0
        assert set(send_verbatim(node.call(), sent).values()) == {0}
        wait_for_instances(node, pacs, 6)
        assert node.command("status").returncode == 0
        assert isinstance(node.status(), dict)
        for thing in (first.SeriesInstanceUID, first.SOPInstanceUID, files[0]):
            answer = node.command("why", thing)
            assert answer.returncode == 0, answer.stderr
            assert "denoise" in answer.stdout
            assert "ct-nlm" in answer.stdout
            assert "pacs" in answer.stdout
        explained = node.command("rules", "explain", files[0])
        assert explained.returncode == 0
        assert "denoise" in explained.stdout
        assert node.command("why", "1.2.3.99").returncode == 1

        pacs.stop()
        down = node.command("echo", "pacs")
        assert down.returncode == 1
        assert len(down.stderr.strip().splitlines()) == 2, "what, and what to do next"


@pytest.mark.peer("orthanc")
def test_a_folder_is_sent_to_a_peer(tmp_path: Path, pacs: Orthanc) -> None:
    phantom_series(tmp_path / "scanner", slices=3)
    node = Node(tmp_path / "node", settings({"pacs": pacs}, RULES))
    assert node.command("send", tmp_path / "scanner", "--to", "pacs").returncode == 0
    assert pacs.statistics()["CountInstances"] == 3
    assert node.command("send", tmp_path / "scanner", "--to", "pasc").returncode in (1, 2)


def test_init_writes_a_configuration_that_checks(tmp_path: Path) -> None:
    answer = dicomnode("init", "--port", str(free_port()), cwd=tmp_path, text="\n" * 20)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    written = tmp_path / "dicomnode.toml"
    text = written.read_text()
    assert text.count("#") > 5
    written.write_text(text.replace('# disk_reserve = "10%"', 'disk_reserve = "1 MB"'))  # however full this disk is
    checked = dicomnode("check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert dicomnode("init", cwd=tmp_path, text="\n" * 20).returncode != 0, "it overwrites nothing"
