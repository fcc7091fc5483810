"""`dicomnode quality` as a person types it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tests.flow.rooms import phantom
from tests.operations.sites import index_of, site


def test_quality_is_asked_and_told(tmp_path: Path, command: Command) -> None:
    with index_of(site(tmp_path)) as flow:
        flow.receive(phantom(2))
        flow.run()
        uid = flow.received.series_instance_uid
        ran = command("quality", "show", uid, "--png", "pages", "--csv", "table.csv", "--json")
        (report,) = ran.json["reports"]
        assert (ran.code, ran.json["written"]) == (0, ["pages/quality-1.png", "table.csv"])
        assert report["figures"]["noise_before"] > 0
        assert command("quality", "show", "1.2.9").code == 1
        (trend,) = command("quality", "trends", "--json").json["trends"]
        assert trend["charts"]["noise_before"]["state"] == "few"
        assert command("quality", "trends", "--drifting").code == 0
        assert command("quality", "rebase", trend["key"], "--reason", "a new tube").code == 0
        assert command("quality", "rebase", trend["key"]).code == 1
        engine = report["engine"]
        assert "on the same 1 stack" in command("quality", "compare", engine, engine, "--since", "2020-01-01").out
        assert (
            command("quality", "compare", engine, "ct-nlm@9").error_lines[1].endswith('shadow = "ct-nlm@9" in a rule')
        )
        assert command("quality", "compare", engine, engine, "--since", "when").code == 2
