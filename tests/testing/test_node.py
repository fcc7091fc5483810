import tomllib

from dicomnode.testing.node import settings, toml
from dicomnode.testing.peers import Call


def test_settings_are_written_as_toml_that_reads_back() -> None:
    tree = {
        "node": {"ae_title": "NODE", "port": 11112, "ae_titles": ["A", "B"]},
        "peer": {"ct 1": {"ae_title": 'a"b\\c'}, "pacs": {"port": 1}},
        "destination": {"pacs": {"peer": "pacs", "retry": {"initial_s": 0.5}}},
        "rule": [{"name": "one", "match": {"SliceThickness": "<= 1.5"}}, {"name": "two", "stop": True}],
    }
    assert tomllib.loads(toml(tree)) == tree


def test_settings_merge_a_test_s_own_tables() -> None:
    tree = settings({}, [], node={"durability": "process"}, peer={"scanner": {"quiet_s": 1.0}})
    assert tree["node"]["ae_title"] == "DICOMNODE"
    assert tree["node"]["durability"] == "process"
    assert tree["peer"]["scanner"] == {"ae_title": "SCANNER", "quiet_s": 1.0}


def test_a_call_is_told_to_dcmtk_by_options() -> None:
    assert Call(104, "NODE", "CT").options == ["-aet", "CT", "-aec", "NODE"]
