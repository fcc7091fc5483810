"""The settings tree: what a file may say, what overrides it, and what a mistake is answered with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.config import Config, examine, find_config, load_config
from dicomnode.core.types import CompletenessPolicy, Peer
from dicomnode.errors import ConfigError
from dicomnode.net.tls import ClientSecurity, Credentials, Profile, ServerSecurity
from dicomnode.settings import ae_title

SITE = """
[node]
ae_title = "ROUTER"
port = 11112

[peer.ct1]
ae_title = "CT1"
quiet_s = 7

[peer.pacs]
ae_title = "MAINPACS"
host = "pacs.hospital.local"
port = 104

[destination.pacs]
peer = "pacs"

[[rule]]
name = "everything"
match = { Modality = "*" }
send = ["pacs"]
"""

Written = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("DICOMNODE_")]:
        monkeypatch.delenv(variable)


@pytest.fixture(name="written")
def _written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "dicomnode.toml"
        path.write_text(text)
        return path

    return write


def test_a_file_becomes_values(written: Written) -> None:
    path = written(SITE)
    config = load_config(path)
    assert config.local_ae_titles == ("ROUTER",)
    assert config.peers() == (Peer("ct1", "CT1"), Peer("pacs", "MAINPACS", "pacs.hospital.local", 104))
    assert config.peer_of("pacs").name == "pacs"
    assert [rule.name for rule in config.rules().rules] == ["everything"]
    assert config.source == path


def test_an_empty_file_is_a_node_that_knows_nobody(written: Written) -> None:
    config = load_config(written(""))
    assert config.node.durability == "power"
    assert not config.node.accept_unknown
    assert config.rules().rules == ()


def test_a_relative_data_folder_lies_beside_the_file(written: Written) -> None:
    path = written('[node]\ndata = "received"')
    assert load_config(path).node.data == path.parent / "received"
    assert load_config(written('[node]\ndata = "/srv/dicom"')).node.data == Path("/srv/dicom")


def test_the_environment_overrides_secret_files_and_both_the_file(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "node__ae_title").write_text("SECRET\n")
    (secrets / "node__port").write_text("1111")
    monkeypatch.setenv("DICOMNODE_SECRETS", str(secrets))
    monkeypatch.setenv("DICOMNODE_NODE__PORT", "2222")
    monkeypatch.setenv("DICOMNODE_PEER__CT1__PORT", "3333")
    config = load_config(written(SITE))
    assert (config.node.ae_title, config.node.port, config.peer["ct1"].port) == ("SECRET", 2222, 3333)
    assert config.peer["ct1"].ae_title == "CT1"


def test_a_peer_has_its_own_waiting_times(written: Written) -> None:
    config = load_config(written(SITE + "\n[completeness]\ndeadline_s = 500\n"))
    assert config.completeness_of("ct1") == CompletenessPolicy(quiet_s=7, released_quiet_s=20, deadline_s=500)
    assert config.completeness_of("") == CompletenessPolicy(quiet_s=60, released_quiet_s=20, deadline_s=500)


def test_a_peer_has_its_own_way_with_late_instances(written: Written) -> None:
    late = '\n[completeness]\nlate = "separate"\n[peer.ct2]\nae_title = "CT2"\nlate = "ignore"\n'
    config = load_config(written(SITE + late))
    assert [config.completeness_of(name).late for name in ("ct2", "ct1", "")] == ["ignore", "separate", "separate"]


@pytest.mark.parametrize("setting", ['late = "never"', 'same_uid = "oldest"', 'rejects = "all"'])
def test_a_word_that_is_none_of_a_policy_is_answered_with_those_there_are(written: Written, setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(SITE + f'\n[peer.ct2]\nae_title = "CT2"\n{setting}\n'))
    assert setting.split()[0] in str(caught.value)
    assert setting.split()[0] in caught.value.hint


@pytest.mark.parametrize(
    ("written_reserve", "bytes_of_a_terabyte"),
    [('"10%"', 10**11), ('"0%"', 0), ("0", 0), ('"5 GB"', 5 * 10**9), ('"2 GiB"', 2 * 2**30), ("1000", 1000)],
)
def test_the_disk_reserve_is_a_share_or_a_size(
    written: Written, written_reserve: str, bytes_of_a_terabyte: int
) -> None:
    config = load_config(written(f"[limits]\ndisk_reserve = {written_reserve}"))
    assert config.limits.disk_reserve_bytes(10**12) == bytes_of_a_terabyte


MISTAKES = [
    ('[node]\nae_tilte = "X"', "[node] ae_tilte: unknown key", "did you mean 'ae_title'?"),
    ("[nod]\nport = 1", "[nod]: unknown key", "did you mean 'node'?"),
    ('[peer.ct1]\nae_title = "A"\nprt = 1', "[peer.ct1] prt: unknown key", "did you mean 'port'?"),
    ("[peer.ct1]\nport = 1", "[peer.ct1] ae_title: missing", "add ae_title = ... to [peer.ct1]"),
    ("[node]\nport = 65536", "[node] port: input should be less than or equal to 65535", "TCP port to listen on"),
    ('[node]\nae_title = "SEVENTEEN_LETTERS"', "[node] ae_title: 'SEVENTEEN_LETTERS' has 17", "our AE title"),
    ('[node]\nae_title = "A\\\\B"', "holds a character that no AE title may have", "our AE title"),
    ('[node]\nae_titles = ["DICOMNODE"]', "[node] ae_titles: an AE title stands there twice", "once"),
    ('[peer."../x"]\nae_title = "A"', "'../x' is no name", ""),
    ('[limits]\ndisk_reserve = "100%"', "is not from 0% to below 100%", ""),
    ('[limits]\nmax_dataset_bytes = "8 apples"', "'8 apples' is no size", ""),
    ('[peer.p]\nae_title = "A"\ntls = true', "[peer.p] tls: nothing says which cert", "set certificate, or host"),
    ('[peer.p]\nae_title = "A"\ncertificate = "sha256:12"', "[peer.p] certificate: 'sha256:12' is no", "fingerprint"),
    ('[tls]\nkey = "node.key"', "[tls] key: there is no certificate", "set tls.certificate"),
    ("[tls]\nonly = true", "[tls] only: there is no certificate", "set tls.certificate"),
    ("[tls]\nport = 2762", "[tls] port: there is no certificate", "set tls.certificate"),
    ('[tls]\ncertificate = "node.pem"', "[tls] ca: missing", "CAs of your peers"),
    ('[tls]\ncertificate = "a"\nca = "b"\nport = 11112', "[tls] port: the same as node.port", "2762"),
    (SITE + "[destination.x]\npeer = 'pcs'", "[destination.x] peer: there is no [peer.pcs]", "did you mean 'pacs'?"),
    (SITE + "[destination.x]\npeer = 'ct1'", "[peer.ct1]: host is missing", "destination 'x' sends there"),
    (SITE + "[destination.x]\npeer = 'pacs'\ncommit = true\nproof = 'find'", "commit: contradicts", "keep one"),
    (SITE + "[destination.x]\npeer = 'pacs'\nask_peer = 'pasc'", "ask_peer: there is no [peer.pasc]", "'pacs'"),
    (SITE + "[destination.x]\npeer = 'pacs'\ncalling_ae = 'a\\b'", "[destination.x] calling_ae", '"sender"'),
    (SITE + "[destination.x]\npeer = 'pacs'\nretry = { patience = 1 }", "patience: unknown key", "'patience_h'"),
    (SITE + "[destination.x]\npeer='pacs'\nretry = { initial_s = 9, maximum_s = 1 }", "retry.maximum_s", "grows"),
    (SITE + "[destination.x]\npeer='pacs'\nhours = '6pm-6am'", "'6pm-6am' are no hours", "mon-fri 18:00-06:00"),
    (SITE + "[destination.x]\npeer='pacs'\nhours = ['tue 08:00-08:00']", "hours", "may be sent to"),
    (SITE + '[peer.x]\nae_title = "CT1"', "[peer.x]: the same ae_title and host as [peer.ct1]", "remove one"),
    ("[completeness]\nquiet_s = 900\n[peer.x]\nae_title = 'X'", "[peer.x] deadline_s: shorter", "or in [completeness]"),
    (SITE + "[[rule]]\nname='b'\nmatch={Modality='CT'}\nsend=['pasc']", "rule 'b': send: there is no destin", "pacs"),
    (SITE + "[[rule]]\nname='b'\nmatch={Modaliti='CT'}\nsend=['pacs']", "rule 'b'", "Modality"),
    (
        SITE + "[[rule]]\nname='b'\nmatch={Modality='CT'}\nengines=['ct-nlm']\nsend=['pacs']\n"
        "[rule.settings.ct-nlm]\nstregth = 1",
        "rule 'b': ct-nlm has no setting 'stregth'", "its settings are",
    ),
    ("[[rule]]\nname='b'\nmatch={Modality='CT'}\nsend=['pacs']", "no destination 'pacs'", "add a [destination.NAME]"),
    ("[rule]\nname='b'", "[rule] is one table", "write [[rule]], with two brackets"),
    ("[rule]\nname='b'\n[rule]\nname='c'", "is not valid TOML", "write [[rule]], with two brackets"),
    ("[node\n", "is not valid TOML", "sections"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what", "hint"), MISTAKES)
def test_a_mistake_is_answered_with_its_place_and_what_to_write(
    written: Written, text: str, what: str, hint: str
) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert what in str(raised.value)
    assert str(path) in str(raised.value)
    assert hint in raised.value.hint


def test_all_mistakes_are_found_at_once(written: Written) -> None:
    path = written("[node]\nport = 0\nprt = 1\n[peer.a]\nhost = 1\n")
    config, problems = examine(path)
    assert config is None
    assert len(problems) == 4
    with pytest.raises(ConfigError, match="and 3 more"):
        load_config(path)


def test_all_rules_with_mistakes_are_found(written: Written) -> None:
    rule = "[[rule]]\nname = '{}'\nmatch = {{ Modality = 'CT' }}\nsend = ['nowhere']\n"
    _, problems = examine(written(rule.format("a") + rule.format("b")))
    assert [("rule 'a'" in str(problem), "rule 'b'" in str(problem)) for problem in problems] == [
        (True, False),
        (False, True),
    ]


def test_the_same_rule_name_twice_is_found(written: Written) -> None:
    _, (problem,) = examine(written(SITE + SITE[SITE.index("[[rule]]") :]))
    assert "twice" in str(problem)


@pytest.mark.parametrize("variable", ["DICOMNODE_NOD__PORT", "DICOMNODE_NODE__PRT"])
def test_a_misspelt_variable_is_not_ignored(written: Written, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigError) as raised:
        load_config(written(SITE))
    assert "did you mean" in raised.value.hint


def test_a_secret_is_not_repeated_in_an_error(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_NODE__PORT", "hunter2")
    with pytest.raises(ConfigError) as raised:
        load_config(written(SITE))
    assert "hunter2" not in str(raised.value) + raised.value.hint


def test_a_missing_secrets_folder_is_an_error(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_SECRETS", "/nowhere/at/all")
    with pytest.raises(ConfigError, match="secret files"):
        load_config(written(SITE))


def test_the_file_is_the_option_or_the_variable_or_the_one_here(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        find_config()
    assert "dicomnode init" in raised.value.hint
    written(SITE)
    assert find_config() == Path("dicomnode.toml")
    other = tmp_path / "other.toml"
    other.touch()
    monkeypatch.setenv("DICOMNODE_CONFIG", str(other))
    assert find_config() == other
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        find_config(tmp_path / "missing.toml")


def test_a_configuration_never_changes(written: Written) -> None:
    config = load_config(written(SITE))
    with pytest.raises(ValueError, match="frozen"):
        config.node.port = 1
    with pytest.raises(ValueError, match="frozen"):
        config.node = Config().node


@given(st.text(max_size=20))
def test_an_ae_title_is_what_the_standard_allows(text: str) -> None:
    """PS3.5 6.2, AE: 16 characters of the default repertoire, no backslash, no control characters, not only spaces."""
    allowed = 1 <= len(text.strip(" ")) <= 16 and text.isascii() and text.strip(" ").isprintable() and "\\" not in text
    try:
        title = ae_title(text)
    except ValueError:
        assert not allowed
    else:
        assert allowed
        assert title == text.strip(" ")


def test_tls_is_off_unless_there_is_a_certificate(written: Written) -> None:
    config = load_config(written(SITE))
    assert config.server_security is None
    assert config.security_of("pacs") is None


def test_tls_settings_become_credentials_with_absolute_paths(written: Written, tmp_path: Path) -> None:
    tls = '[tls]\ncertificate = "tls/node.pem"\nkey = "/etc/key"\nca = "ca.pem"\nprofile = "bcp195-modified"\n'
    fingerprint = "SHA256:" + ":".join(["AB"] * 32)
    peers = (
        f'[peer.a]\nae_title = "A"\ntls = true\ncertificate = "{fingerprint}"\n'
        '[peer.b]\nae_title = "B"\ntls = true\ncertificate = ["B1", "b2.hospital"]\n'
        '[peer.c]\nae_title = "C"\nhost = "c.hospital"\ncertificate = "C"\n'
    )
    config = load_config(written(tls + 'client_certificates = "optional"\n' + peers))
    credentials = Credentials(tmp_path / "tls/node.pem", Path("/etc/key"), tmp_path / "ca.pem", Profile.BCP195_MODIFIED)
    assert config.server_security == ServerSecurity(credentials, certificate_required=False)
    assert config.security_of("a") == ClientSecurity(credentials, (f"sha256:{'ab' * 32}",))
    assert config.security_of("b") == ClientSecurity(credentials, ("B1", "b2.hospital"))
    assert config.security_of("c") is None


def test_a_database_url_is_never_shown(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_NODE__DATABASE", "postgresql://someone:hunter2@server/index")
    config = load_config(written('[node]\nname = "one"\nfiles = "shared"\n'))
    assert config.database == "postgresql://someone:hunter2@server/index"
    assert "hunter2" not in f"{config!r} {config}"
    monkeypatch.setenv("DICOMNODE_NODE__DATABASE", "mysql://someone:hunter2@server/index")
    with pytest.raises(ConfigError) as caught:
        load_config(written("[node]\n"))
    assert "no URL of a PostgreSQL database" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_machines_that_share_a_database_have_names(written: Written, tmp_path: Path) -> None:
    node = '[node]\ndatabase = "postgresql://someone@server/index"\n'
    with pytest.raises(ConfigError, match="name: missing"):
        load_config(written(node))
    assert load_config(written(f'{node}name = "one"\n')).files == tmp_path / "data"
    assert load_config(written(f'{node}name = "one"\nfiles = "shared"\n')).files == tmp_path / "shared"


@pytest.mark.parametrize(
    ("text", "place", "says", "hint"),
    [
        ("[node]\nreceivers = 0", "[node] receivers", "0 is neither", "receivers is: processes that receive"),
        ('[node]\nreceivers = "many"', "[node] receivers", "'many' is neither", "receivers is"),
        ('[node]\nprivate_sop_classes = ["1.2", "x"]', "[node] private_sop_classes", "'x' is no UID", "UIDs of SOP"),
        ('[node]\nprivate_sop_classes = "1.2"', "[node] private_sop_classes", "should be a list", "UIDs of SOP"),
        ("[node]\nfiles = 3", "[node] files", "should be text", "folder of the stored files"),
        ("[limits]\nidle_s = 0", "[limits] idle_s", "greater than or equal to 1", "says nothing for so long"),
        ("[node]\nport = 1\nport = 2", "", "Cannot overwrite a value", "stands there twice"),
        ("[node]\n[node]", "", "Cannot declare", "stands there twice"),
    ],
)
def test_one_mistake_is_told_once_and_in_the_words_of_the_file(
    written: Written, text: str, place: str, says: str, hint: str
) -> None:
    (problem,) = examine(written(text))[1]
    assert place in str(problem)
    assert says in str(problem)
    assert hint in problem.hint


@pytest.mark.parametrize(("receivers", "meant"), [('"auto"', "auto"), ("3", 3), ('"3"', 3)])
def test_receivers_are_a_number_or_auto(written: Written, receivers: str, meant: int | str) -> None:
    assert load_config(written(f"[node]\nreceivers = {receivers}")).node.receivers == meant
