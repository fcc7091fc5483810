"""What several machines need of an index on PostgreSQL. Most tests of this folder run there as well."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import text

from dicomnode.errors import ConfigError, StoreError
from dicomnode.store.claims import Claim
from dicomnode.store.database import Database
from dicomnode.store.files import FileStore
from dicomnode.store.inspection import inspect_server, require_durable
from dicomnode.store.intake import StoreIntake
from dicomnode.store.schema import Association, Base, Instance, Outbox, Patient, Series, Study
from tests.store.receiving import TO_PACS, Reception, ct_header, routing

pytestmark = pytest.mark.peer("postgresql")

NewUrl = Callable[[], str]
TIMEOUT_S = 60.0


@pytest.fixture(name="url")
def _url(new_postgresql_url: NewUrl) -> str:
    return new_postgresql_url()


@pytest.fixture(name="database")
def _database(url: str) -> Iterator[Database]:
    with closing(Database(url, "none")) as database:
        yield database


def machine(name: str, url: str, files: Path, databases: list[Database]) -> Reception:
    """A receiver of one of several machines that share an index and a folder of files."""
    databases.append(Database(url, "none"))
    store = FileStore(files, 0, sync=False, owner=name)
    return Reception(files, databases[-1], store, StoreIntake(databases[-1], store, routing(TO_PACS), name))


@pytest.fixture(name="machines")
def _machines(url: str, tmp_path: Path) -> Iterator[Sequence[Reception]]:
    databases: list[Database] = []
    yield [machine(name, url, tmp_path, databases) for name in ("a", "b")]
    for database in databases:
        database.close()


def send_at_once(machines: Sequence[Reception], shares: Sequence[Sequence[Dataset]]) -> None:
    """Each machine is sent its share over two associations, all at the same time."""
    begin, failures = threading.Barrier(2 * len(machines)), list[Exception]()

    def send(machine: Reception, share: Sequence[Dataset]) -> None:
        begin.wait(TIMEOUT_S)
        try:
            for dataset in share:
                machine.receive(dataset)
        except Exception as error:  # noqa: BLE001  the test fails by it
            failures.append(error)

    halves = [(machine, share[start::2]) for machine, share in zip(machines, shares, strict=True) for start in (0, 1)]
    threads = [threading.Thread(target=send, args=half) for half in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert failures == []


def test_the_migrations_make_exactly_the_schema(database: Database) -> None:
    with database.engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
        assert alembic.autogenerate.compare_metadata(context, Base.metadata) == []


def test_machines_that_start_at_once_make_the_tables_once(database: Database) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    command = [sys.executable, "-c", "import sys; from dicomnode.store.database import migrate; migrate(sys.argv[1])"]
    starting = [subprocess.Popen([*command, database.url]) for _ in range(3)]
    assert [process.wait(TIMEOUT_S) for process in starting] == [0, 0, 0]
    inspect_server(database.url)


def test_two_machines_that_receive_halves_of_one_study_make_one_of_it(machines: Sequence[Reception]) -> None:
    datasets = [ct_header(number) for number in range(40)]
    send_at_once(machines, [datasets[::2], datasets[1::2]])
    one = machines[0]
    assert [len(one.rows(kind)) for kind in (Patient, Study, Series)] == [1, 1, 1]
    assert len(one.rows(Instance)) == len(one.rows(Outbox)) == 40
    assert all(one.files.path(instance.file).exists() for instance in one.rows(Instance))


def test_two_machines_that_receive_the_same_keep_it_once(machines: Sequence[Reception]) -> None:
    datasets = [ct_header(number) for number in range(20)]
    send_at_once(machines, [datasets, datasets[::-1]])
    one = machines[0]
    assert sorted(instance.sop_instance_uid for instance in one.rows(Instance)) == sorted(
        dataset.SOPInstanceUID for dataset in datasets
    )
    assert len(one.rows(Outbox)) == 20
    assert len(list(one.folder.rglob("*.dcm"))) == 20


def test_a_machine_that_starts_leaves_alone_what_another_receives(machines: Sequence[Reception]) -> None:
    first, second = machines
    first.receive(ct_header(1))
    second.intake.recover()
    assert [row.ended for row in first.rows(Association)] == [None]
    first.intake.recover()
    assert [row.ended for row in first.rows(Association)] == ["lost"]


def test_a_write_is_alone(database: Database) -> None:
    """As on SQLite: what is read first is still so when it is written."""
    done = threading.Event()

    def record() -> None:
        with database.statements() as cursor:
            cursor.execute("INSERT INTO patient (patient_id, issuer) VALUES ('1', '')")
        done.set()

    with database.write() as session:
        assert session.query(Patient).count() == 0
        thread = threading.Thread(target=record)
        thread.start()
        assert not done.wait(0.2)
        assert session.query(Patient).count() == 0
    thread.join(TIMEOUT_S)
    with database.read() as session:
        assert session.query(Patient).count() == 1


def test_a_read_sees_one_state(database: Database) -> None:
    with database.read() as reader:
        assert reader.query(Patient).count() == 0
        with database.write() as session:
            session.add(Patient(patient_id="1", issuer=""))
        assert reader.query(Patient).count() == 0


@pytest.mark.parametrize(("durability", "asked"), [("power", "on"), ("process", "on"), ("none", "off")])
def test_durability_is_what_was_asked_for(url: str, durability: str, asked: str) -> None:
    with closing(Database(url, durability)) as database, database.read() as session:
        assert session.scalar(text("SHOW synchronous_commit")) == asked


def test_a_server_that_forces_nothing_to_the_disk_is_told(url: str) -> None:
    """As ours for tests does not."""
    with pytest.raises(StoreError, match="fsync is off") as caught:
        require_durable(url, "power")
    assert 'durability = "process"' in caught.value.hint
    require_durable(url, "process")


def test_a_server_that_forgets_when_it_is_killed_is_told(database: Database, url: str) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = connection.scalar(text("SELECT current_database()"))
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(StoreError, match=r"synchronous_commit is off: .* when the server is killed"):
        require_durable(url, "process")
    require_durable(url, "none")


def test_what_one_claims_another_cannot_have(database: Database, url: str) -> None:
    with closing(Database(url)) as other:
        claim = Claim(database, "deliver", "a hint")
        assert claim.holds()
        with pytest.raises(ConfigError, match="'deliver'"):
            Claim(other, "deliver", "a hint")
        with closing(Claim(other, "flow", "a hint")):
            claim.close()
        taken = Claim(other, "deliver", "a hint")
        assert not claim.holds(), "it is another's now"
        taken.close()
        assert claim.holds(), "it was free, and is taken again"
        claim.close()


def test_a_claim_whose_connection_broke_is_taken_again(database: Database, url: str) -> None:
    with closing(Database(url)) as other, closing(Claim(database, "deliver", "a hint")) as claim:
        with other.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        assert claim.holds()
        with pytest.raises(ConfigError):
            Claim(other, "deliver", "a hint")


def test_on_sqlite_there_is_nothing_to_claim(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'node.sqlite'}")) as database:
        claims = [Claim(database, "deliver", "a hint") for _ in range(2)]
        assert all(claim.holds() for claim in claims)


def test_a_server_that_does_not_answer_is_told_without_its_password(port: int) -> None:
    with pytest.raises(StoreError) as caught:
        inspect_server(f"postgresql+psycopg://someone:secret@127.0.0.1:{port}/index")
    assert "secret" not in f"{caught.value} {caught.value.hint}"
