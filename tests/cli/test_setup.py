"""init writes a file that check finds nothing wrong with; check finds what is wrong, and touches nothing."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.config import load_config
from dicomnode.errors import UsageError
from dicomnode.operations import setup
from dicomnode.store.locks import exclusive
from dicomnode.testing.processes import free_port
from tests.certificates import Authority, Identity
from tests.cli.conftest import Command

PACS = "MAINPACS,127.0.0.1,104"
SCANNER = "ct1,CT1,127.0.0.1"


def test_five_questions_make_a_configuration(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(f"ROUTER\n11113\nstore\n{SCANNER}\n{PACS}\n"))
    ran = command("init")
    assert ran.code == 0
    assert "next: dicomnode check" in ran.out
    config = load_config(tmp_path / "dicomnode.toml")
    assert (config.node.ae_title, config.node.port, config.node.data) == ("ROUTER", 11113, tmp_path / "store")
    assert config.peer["ct1"].ae_title == "CT1"
    assert config.peer_of("pacs").port == 104
    assert len(config.rules().rules) == 1


def test_a_wrong_answer_is_asked_for_again(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("MUCH_TOO_LONG_FOR_AN_AE\nROUTER\nx\n11113\n\n\n\n"))
    assert command("init").code == 0
    assert load_config(tmp_path / "dicomnode.toml").node.port == 11113


def test_options_answer_questions(command: Command, tmp_path: Path) -> None:
    ran = command("init", "--yes", "--ae-title", "ROUTER", "--port", "104", "--pacs", PACS, "--config", "sub/x.toml")
    assert ran.code == 0
    assert load_config(tmp_path / "sub/x.toml").local_ae_titles == ("ROUTER",)


def test_nothing_is_overwritten(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "dicomnode.toml"
    path.write_text("# precious")
    refused = command("init", "--yes")
    assert (refused.code, path.read_text()) == (2, "# precious")
    assert "--force" in refused.err
    assert command("init", "--yes", "--force").code == 0
    assert load_config(path).node.ae_title == "DICOMNODE"


@pytest.mark.parametrize("option", ["--ae-title=", "--port=0", "--data=", "--scanner=ct1", "--pacs=A,h,x"])
def test_a_wrong_option_writes_nothing(command: Command, tmp_path: Path, option: str) -> None:
    ran = command("init", "--yes", option)
    assert ran.code == 2
    assert option.partition("=")[0] in ran.err
    assert not list(tmp_path.iterdir())


TEXT = st.text(max_size=12)


@settings(deadline=None, max_examples=60)
@given(data=TEXT, name=TEXT, ae=TEXT, host=TEXT)
def test_whatever_is_answered_the_file_says_it(
    tmp_path_factory: pytest.TempPathFactory, data: str, name: str, ae: str, host: str
) -> None:
    answers = {"ae_title": ae, "port": "104", "data": data, "scanner": f"{name},{ae},{host}", "pacs": f"{ae},{host},9"}
    try:
        site = setup.site(answers)
    except UsageError:
        return
    path = tmp_path_factory.mktemp("site") / "dicomnode.toml"
    setup.write(path, site)
    config = load_config(path)
    assert site.scanner is None or config.peer[site.scanner.name].host == site.scanner.host
    assert config.local_ae_titles == (site.ae_title,)


def test_check_is_content_with_what_init_writes(command: Command, tmp_path: Path, port: int) -> None:
    command("init", "--yes", "--port", str(port), "--scanner", SCANNER, "--pacs", PACS)
    before = sorted(tmp_path.rglob("*"))
    ran = command("check")
    assert ran.code == 0, ran.out
    assert "ok: dicomnode serve" in ran.out
    assert sorted(tmp_path.rglob("*")) == before


def test_check_lists_every_problem(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "dicomnode.toml").write_text(
            f'[node]\nhost = "127.0.0.1"\nport = {port}\ndata = "file/data"\n'
            '[peer.a]\nae_title = "A"\nhost = "nowhere.invalid"\n'
            '[destination.b]\npeer = "c"\n'
        )
        ran = command("check", "--json")
    assert ran.code == 1
    problems = " ".join(problem["what"] for problem in ran.json["problems"])
    for what in ("there is no [peer.c]", "is a file", "nowhere.invalid cannot be resolved", "cannot be listened on"):
        assert what in problems
    assert all(problem["next"] for problem in ran.json["problems"])


def test_check_reads_the_log_level_of_the_file(command: Command, tmp_path: Path, port: int) -> None:
    (tmp_path / "dicomnode.toml").write_text(f'[node]\nport = {port}\n[log]\nlevel = "loud"\n')
    assert "[log] level" in command("check").out
    assert "[log] level" in command("check").out, "not even after a command that set up its own log"


def test_check_looks_at_the_port_of_the_metrics(command: Command, tmp_path: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        text = f"[node]\nport = {port}\n[metrics]\nport = "
        (tmp_path / "dicomnode.toml").write_text(f"{text}{taken}")
        assert f"[metrics] port: 127.0.0.1:{taken} cannot be listened on" in command("check").out
    (tmp_path / "dicomnode.toml").write_text(f"{text}{port}")
    assert f"[metrics] port: {port} is one that we receive on" in command("check").out


def test_check_finds_a_disk_that_is_too_full(command: Command, tmp_path: Path, port: int) -> None:
    (tmp_path / "dicomnode.toml").write_text(f'[node]\nport = {port}\n[limits]\ndisk_reserve = "99.9%"\n')
    ran = command("check")
    assert ran.code == 1
    assert "would refuse every instance" in ran.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_check_finds_a_folder_that_cannot_be_written(command: Command, tmp_path: Path, port: int) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    (tmp_path / "dicomnode.toml").write_text(f'[node]\nport = {port}\ndata = "locked/data"\n')
    assert "cannot be written to" in command("check").out


def test_check_beside_a_running_node_does_not_mind_its_port(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server, exclusive(tmp_path / "data", "node.lock"):
        port = server.getsockname()[1]
        (tmp_path / "dicomnode.toml").write_text(f'[node]\nhost = "127.0.0.1"\nport = {port}\n')
        ran = command("check")
    assert ran.code == 0, ran.out
    assert f"ok. A node runs here: reload it with kill -HUP {os.getpid()}" in ran.out
    assert "restart" not in ran.out


def test_check_sees_that_the_running_node_has_another_port(command: Command, tmp_path: Path, port: int) -> None:
    (tmp_path / "data").mkdir()
    with exclusive(tmp_path / "data", "node.lock"):
        (tmp_path / "dicomnode.toml").write_text(f'[node]\nhost = "127.0.0.1"\nport = {port}\n')
        ran = command("check")
    assert f"nobody listens on 127.0.0.1:{port}" in ran.out
    assert "restart it" in ran.out


def test_check_sees_that_the_running_node_has_no_tls_port_yet(command: Command, tmp_path: Path) -> None:
    own = Authority(tmp_path).issue("node")
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server, exclusive(tmp_path / "data", "node.lock"):
        plain, tls = server.getsockname()[1], free_port()
        write_tls_site(tmp_path, own, f'[node]\nhost = "127.0.0.1"\nport = {plain}', f"port = {tls}")
        ran = command("check")
    assert f"nobody listens on 127.0.0.1:{tls} (TLS)" in ran.out
    assert f"nobody listens on 127.0.0.1:{plain}" not in ran.out


def write_tls_site(folder: Path, own: Identity, before: str, after: str) -> None:
    files = f'certificate = "{own.certificate}"\nkey = "{own.key}"\nca = "{own.ca}"'
    (folder / "dicomnode.toml").write_text(f"{before}\n[tls]\n{files}\n{after}\n")


@pytest.mark.parametrize(
    ("days", "code", "said"),
    [
        ((-1, 365), 0, "ok: dicomnode serve"),
        ((-1, 12), 0, "11 days left"),
        ((-9, -1), 1, "has expired on"),
        ((2, 9), 1, "is not valid before"),
    ],
)
def test_check_looks_at_the_time_of_our_certificate(
    days: tuple[int, int], code: int, said: str, command: Command, tmp_path: Path, port: int
) -> None:
    own = Authority(tmp_path).issue("node", days=days)
    write_tls_site(tmp_path, own, f"[node]\nport = {port}", f"port = {free_port()}")
    ran = command("check")
    assert ran.code == code
    assert ran.out.count(said) == 1
    assert ("tls.certificate" in ran.out) == (days != (-1, 365))


def test_check_finds_certificates_that_cannot_be_used_and_peers_that_need_none(
    command: Command, tmp_path: Path, port: int
) -> None:
    authority = Authority(tmp_path)
    mixed = replace(authority.issue("node"), key=authority.issue("other").key)
    peer = '[peer.ct]\nae_title = "CT"\ncertificate = "ct"'
    write_tls_site(tmp_path, mixed, f"[node]\nport = {port}", f"port = {free_port()}\n{peer}")
    ran = command("check")
    assert ran.code == 1
    assert f"{mixed.key} is not the key of {mixed.certificate}" in ran.out
    assert "[peer.ct] has a certificate, and may call without TLS all the same" in ran.out


def test_check_finds_a_caller_for_whom_there_is_no_port(command: Command, tmp_path: Path, port: int) -> None:
    peers = "\n".join(
        f'[peer.{name}]\nae_title = "{name}"\nhost = "127.0.0.1"\nport = 104\ntls = true' for name in ("ct", "pacs")
    )
    destination = '[destination.pacs]\npeer = "pacs"'
    (tmp_path / "dicomnode.toml").write_text(f"[node]\nport = {port}\n{peers}\n{destination}\n")
    ran = command("check")
    assert "[peer.ct] has to call by TLS, and there is no TLS port" in ran.out
    assert "[peer.pacs]" not in ran.out, "we call it"


def test_check_warns_of_a_node_that_takes_and_sends_nothing(command: Command, port: int) -> None:
    command("init", "--yes", "--port", str(port), "--config", "my site.toml")
    ran = command("check", "--config", "my site.toml")
    assert ran.code == 0
    assert "warning: no peer: every caller is refused" in ran.out
    assert "warning: no rule: everything stays unrouted" in ran.out
    assert "ok: dicomnode serve --config 'my site.toml'" in ran.out
