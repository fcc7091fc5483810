"""engines add, check, use, remove, show, keygen, sign: a bundle's way into a node, and out again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from dicomnode.config import Config, load_config
from dicomnode.operations.index import reading
from dicomnode.store import bundles
from dicomnode.store.bundles import By
from dicomnode.store.database import index_url, migrate
from dicomnode.store.index.actions import actions_on
from dicomnode.testing.bundles import made, made_bundle
from engines.bundle.folder import golden, load_bundle, read_card, seal
from engines.bundle.golden import Golden, Tolerance, write_golden
from tests.cli.conftest import Command
from tests.engines.greedy import greedy

NAME = "random-adjacent"
RULE = "[[rule]]\nname = 'thin'\nmatch = {{ Modality = 'CT' }}\nengines = ['{engine}']\nsend = ['pacs']\n"


@pytest.fixture(name="sources", scope="module")
def _sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("1.0.0", "1.1.0"):
        (folder / version).mkdir()
        made_bundle(folder / version, "adjacent", version)
    return folder


@pytest.fixture(name="site")
def _site(command: Command, tmp_path: Path) -> Path:
    """A configuration."""
    command("init", "--yes", "--pacs", "PACS,127.0.0.1,104")
    return tmp_path / "dicomnode.toml"


@pytest.fixture(name="index")
def _index(site: Path) -> Config:
    """The site's configuration; it has an index, and so an audit trail."""
    config = load_config(site)
    config.node.data.mkdir(parents=True, exist_ok=True)
    migrate(index_url(config.database, config.node.data))
    return config


@pytest.fixture(name="installed")
def _installed(command: Command, site: Path, sources: Path) -> Command:
    """Two versions, the older in use."""
    for version in ("1.0.0", "1.1.0"):
        bundles.add(load_config(site).bundles, load_bundle(sources / version), "", By("somebody", 1.7e9))
    return command


def _write(site: Path, text: str) -> None:
    with site.open("a") as file:
        file.write(text)


def test_an_unsigned_bundle_needs_a_word(command: Command, index: Config, sources: Path) -> None:
    refused = command("engines", "add", sources / "1.0.0")
    assert refused.code == 2
    assert "not signed" in refused.error_lines[0]
    assert "--allow-unsigned" in refused.error_lines[1]
    taken = command("engines", "add", sources / "1.0.0", "--allow-unsigned")
    assert taken.code == 0
    assert "NOT signed" in taken.out
    assert "NOT signed" in command("engines", "list").out
    with reading(index) as session:
        assert _done(session, f"{NAME}@1.0.0") == [("engines add", "not signed by a trusted key")]


def test_a_signed_bundle_needs_its_key_to_be_trusted(
    command: Command, site: Path, sources: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(sources / "1.0.0", tmp_path / "mine"))
    key = command("engines", "keygen", "maker", "--json").json["fingerprint"]
    assert command("engines", "sign", source, "--key", "maker").code == 0
    assert "not trusted" in command("engines", "add", source).error_lines[0]
    _write(site, "[engines]\ntrusted_keys = ['maker.pub']\n")
    assert command("engines", "add", source, "--json").json["signed_by"] == key
    assert f"signed by {key}" in command("engines", "show", NAME).out


def test_a_false_signature_is_refused_whatever_is_allowed(
    command: Command, site: Path, sources: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(sources / "1.0.0", tmp_path / "mine"))
    command("engines", "keygen", "maker")
    command("engines", "sign", source, "--key", "maker")
    signature = (source / "signature.json").read_bytes()
    (source / "CARD.md").write_text("other words")
    seal(source)
    (source / "signature.json").write_bytes(signature)
    refused = command("engines", "add", source, "--allow-unsigned")
    assert refused.code == 1
    assert "does not belong" in refused.error_lines[0]


def test_a_key_that_cannot_be_read_is_a_problem_of_the_configuration(command: Command, site: Path) -> None:
    _write(site, "[engines]\ntrusted_keys = ['nowhere.pub']\n")
    assert "trusted_keys" in command("engines", "list").error_lines[0]


def test_versions_are_switched_and_given_back(installed: Command, index: Config) -> None:
    assert installed("engines", "use", f"{NAME}@1.1.0", "--json").json["before"] == "1.0.0"
    assert installed("engines", "show", NAME, "--json").json["card"]["version"] == "1.1.0"
    assert installed("engines", "use", NAME, "--back", "--json").json["in_use"] == "1.0.0"
    assert installed("engines", "use", NAME).code == 2  # names no version
    with reading(index) as session:
        assert _done(session, f"{NAME}@1.1.0")[-1] == ("engines use", "before: 1.0.0")


def test_a_bundle_has_one_digest_and_its_limits_are_told(installed: Command, sources: Path) -> None:
    digest = load_bundle(sources / "1.0.0").digest
    shown = installed("engines", "show", NAME)
    assert digest in shown.out
    assert "computed here by" in shown.out and "a halo of 5 px" in shown.out
    assert "held to bias_hu: at most 2 HU: mean change" in shown.out
    told = installed("engines", "show", NAME, "--json").json
    assert told["digest"] == digest and "runtime" not in told["card"]
    checked = installed("engines", "check", NAME, "--json").json
    listed = {one["name"]: one["digest"] for one in installed("engines", "list", "--json").json["engines"]}
    assert checked["digest"] == listed[NAME] == digest


def test_what_a_rule_names_is_not_removed(installed: Command, site: Path) -> None:
    assert "in use" in installed("engines", "remove", f"{NAME}@1.0.0").error_lines[0]
    before = site.read_text()
    for engine, version in ((f"{NAME}@1.1.0", "1.1.0"), (NAME, "1.0.0")):
        site.write_text(before + RULE.format(engine=engine))
        refused = installed("engines", "remove", f"{NAME}@{version}")
        assert refused.code == 2
        assert "rule 'thin'" in refused.error_lines[0]
    site.write_text(before)
    assert installed("engines", "remove", f"{NAME}@1.1.0").code == 0
    assert installed("engines", "remove", f"{NAME}@1.0.0").code == 0
    assert NAME not in installed("engines", "list").out


@pytest.mark.parametrize(("engine", "hint"), [(f"{NAME}@1.2.0", "1.1.0"), ("random-adjacend", NAME)])
def test_a_rule_is_held_to_what_is_installed(installed: Command, site: Path, engine: str, hint: str) -> None:
    _write(site, RULE.format(engine=engine))
    ran = installed("engines", "list")
    assert ran.code != 0
    assert hint in ran.error_lines[1]


def test_a_rule_names_a_bundle_like_any_engine(installed: Command, site: Path) -> None:
    _write(site, RULE.format(engine=f"{NAME}@1.1.0"))
    listed = {engine["name"]: engine for engine in installed("engines", "list", "--json").json["engines"]}
    assert listed[NAME]["rules"] == ["thin"]
    assert [version["in_use"] for version in listed[NAME]["versions"]] == [True, False]


def test_a_damaged_bundle_is_told_of_and_hides_no_other(installed: Command, site: Path) -> None:
    (load_config(site).bundles / NAME / "1.0.0" / "net.onnx").write_bytes(b"")
    out = installed("engines", "list").out
    assert f"{NAME}: cannot be used" in out
    assert "ct-nlm@1.0.0" in out
    for shown in (out, installed("engines", "show", NAME).out):
        (damaged,) = [line for line in shown.splitlines() if "DAMAGED" in line]
        assert "version 1.0.0" in damaged and "version 1.1.0" in shown
    assert installed("engines", "show", f"{NAME}@1.0.0").code == 1
    whole = installed("engines", "show", f"{NAME}@1.1.0", "--json").json
    assert "net.onnx" in whole["damaged"]["1.0.0"]
    assert installed("engines", "check", NAME).code == 1
    assert installed("engines", "check", f"{NAME}@1.1.0").code == 0


def test_a_network_that_asks_for_all_memory_is_an_error(
    command: Command, site: Path, sources: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(sources / "1.0.0", tmp_path / "greedy"))
    (source / "net.onnx").write_bytes(greedy((source / "net.onnx").read_bytes()))
    seal(source)
    checked = command("engines", "check", source, "--runtime", "onnxruntime", "--json")
    (trial,) = checked.json["trials"]
    assert (checked.code, trial["state"]) == (1, "failed")
    assert "the network failed at" in trial["found"] or "worker died" in trial["found"]
    refused = command("engines", "add", source, "--allow-unsigned")
    assert "golden test" in refused.error_lines[0] and "onnxruntime" in refused.error_lines[0]


def test_check_runs_the_golden_test_in_each_runtime(command: Command, sources: Path) -> None:
    ran = command("engines", "check", sources / "1.0.0", "--json")
    assert ran.code == 0
    passed = {trial["runtime"] for trial in ran.json["trials"] if trial["state"] == "passed"}
    assert {"onnxruntime", "openvino"} <= passed
    one = command("engines", "check", sources / "1.0.0", "--runtime", "onnxruntime", "--json")
    assert {trial["runtime"] for trial in one.json["trials"]} == {"onnxruntime"}
    assert "onnxruntime" in command("engines", "check", sources / "1.0.0", "--runtime", "onnxrun").error_lines[1]
    assert "comes with the node" in command("engines", "check", "ct-nlm").error_lines[1]


def _shifted(test: Golden) -> Golden:
    strict = Tolerance(0.01, 0.01, 0.01)
    tolerance = {precision: dict.fromkeys(test.outputs, strict) for precision in test.tolerance}
    return Golden(test.inputs, {**test.outputs, "image": test.inputs["image"]}, tolerance, test.settings)


def test_a_bundle_that_computes_something_else_is_not_installed(
    command: Command, site: Path, sources: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(sources / "1.0.0", tmp_path / "mine"))
    (source / "golden.npz").write_bytes(write_golden(_shifted(golden(load_bundle(source)))))
    seal(source)
    assert command("engines", "check", source).code == 1
    refused = command("engines", "add", source, "--allow-unsigned")
    assert refused.code == 1
    assert "golden test" in refused.error_lines[0]
    assert NAME not in command("engines", "list").out


def _done(session: Session, subject: str) -> list[tuple[str, str]]:
    return [(action.what, action.reason) for action in actions_on(session, subject)]


def test_what_changes_nothing_is_said(installed: Command) -> None:
    assert "nothing changed" in installed("engines", "use", f"{NAME}@1.0.0").out


def test_the_message_names_what_the_rule_names(installed: Command, site: Path) -> None:
    _write(site, RULE.format(engine=NAME))
    refused = installed("engines", "remove", f"{NAME}@1.0.0")
    assert f"names {NAME}, which is {NAME}@1.0.0 now" in refused.error_lines[0]
    assert "engines use" in refused.error_lines[1]


def test_an_engine_that_is_not_there_may_be_added(command: Command, tmp_path: Path) -> None:
    assert "dicomnode engines add" in command("engines", "check", "nowhere").error_lines[1]
    exported = command("engines", "export", "ct-nlm", tmp_path / "monai")
    assert "export" in exported.error_lines[1]


def test_a_bundle_is_begun_made_and_signed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(made("denoise").networks["net.onnx"])
    begun = command("engines", "new", "mine", "--name", "ct-mine", "--network", "net.onnx")
    assert "it looks 17 px far" in begun.out
    assert command("engines", "new", "mine", "--name", "ct-mine").code == 2
    assert "nothing is said" in command("engines", "make", "mine").error_lines[0]
    card = tmp_path / "mine" / "card.toml"
    card.write_text(re.sub(r'^(intended_use|maker|licence|run) = ""', r'\1 = "said"', card.read_text(), flags=re.M))
    command("engines", "keygen", "maker")
    refused = command("engines", "make", "mine", "--key", "maker.pub")
    assert "public key" in refused.error_lines[0] and not (tmp_path / "mine" / "golden.npz").exists()
    done = command("engines", "make", "mine", "--key", "maker", "--json").json
    assert done["digest"] == load_bundle(tmp_path / "mine").digest
    assert any("noise_ratio: NOT judged" in note for note in done["notes"])
    assert done["signed_by"] in command("engines", "check", "mine", "--runtime", "onnxruntime").out


def test_of_several_networks_none_is_taken_unasked(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / "mine" / name).write_bytes(made("denoise").networks["net.onnx"])
    refused = command("engines", "new", "mine", "--name", "ct-mine")
    assert refused.code == 2 and "a.onnx, b.onnx" in refused.error_lines[0]
    assert not (tmp_path / "mine" / "card.toml").exists()
    assert command("engines", "new", "mine", "--name", "ct-mine", "--network", "mine/b.onnx").code == 0
    assert read_card(tmp_path / "mine")[0].stages[0].file == "b.onnx"


def test_a_network_of_that_name_is_not_overwritten(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(made("denoise").networks["net.onnx"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.onnx").write_bytes(b"another")
    refused = command("engines", "new", "mine", "--name", "ct-mine", "--network", "net.onnx")
    assert refused.code == 2 and "net.onnx is there already" in refused.error_lines[0]
    assert [path.read_bytes() for path in (tmp_path / "mine").iterdir()] == [b"another"]


@pytest.mark.parametrize(("name", "file"), [("ct-mine", 'a"b.onnx'), ('ct"mine', "net.onnx"), ("CT", "net.onnx")])
def test_names_that_no_card_may_have_are_refused(command: Command, tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).write_bytes(made("denoise").networks["net.onnx"])
    refused = command("engines", "new", "mine", "--name", name, "--network", file)
    assert refused.code == 2 and ("letters" in refused.error_lines[1])
    assert not (tmp_path / "mine").exists()


def test_others_may_read_what_is_given_on(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(made("denoise").networks["net.onnx"])
    command("engines", "new", "mine", "--name", "ct-mine", "--network", "net.onnx")
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "mine").iterdir()} == {
        "card.toml": 0o644, "net.onnx": 0o644,
    }  # fmt: skip


def test_a_halo_that_is_too_small_is_warned_of(command: Command, sources: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(sources / "1.0.0", tmp_path / "narrow"))
    card = source / "card.toml"
    card.write_text(card.read_text().replace("halo_px = 5", "halo_px = 0"))
    seal(source)
    checked = command("engines", "check", source, "--runtime", "onnxruntime")
    assert checked.code == 0
    assert "warning: net.onnx looks 5 px far and its halo_px is 0: tiles would show seams" in checked.out
