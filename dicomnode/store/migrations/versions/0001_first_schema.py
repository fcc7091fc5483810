"""First schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
readers_from = "0001"

_LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:

    op.create_table(
        "association",
        sa.Column("id", _LARGE, autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.Column("called_ae", sa.String(), nullable=False),
        sa.Column("source_address", sa.String(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("ended", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_association")),
    )
    with op.batch_alter_table("association", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_association_ended_at"), ["ended_at"], unique=False)

    op.create_table(
        "destination",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("down_since", sa.Double(), nullable=True),
        sa.Column("down_until", sa.Double(), nullable=True),
        sa.Column("held_told_at", sa.Double(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("last_hint", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destination")),
    )
    op.create_table(
        "pause",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("paused_at", sa.Double(), nullable=False),
        sa.Column("resumed_at", sa.Double(), nullable=True),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pause")),
    )
    with op.batch_alter_table("pause", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_pause_destination_resumed_at"), ["destination", "resumed_at"], unique=False
        )

    op.create_table(
        "action",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_action")),
    )
    with op.batch_alter_table("action", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_action_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_action_subject"), ["subject"], unique=False)

    op.create_table(
        "pace",
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("learned_to", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sender", name=op.f("pk_pace")),
    )
    op.create_table(
        "expectation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expectation")),
        sa.UniqueConstraint(
            "series_instance_uid", "source", "peer", name=op.f("uq_expectation_series_instance_uid_source_peer")
        ),
    )
    with op.batch_alter_table("expectation", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_expectation_series_instance_uid"), ["series_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_expectation_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "patient",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient")),
        sa.UniqueConstraint("patient_id", "issuer", name=op.f("uq_patient_patient_id_issuer")),
    )
    op.create_table(
        "process",
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("home", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("executor_id", sa.String(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("beat_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("role", "host", name=op.f("pk_process")),
        sa.UniqueConstraint("executor_id", name=op.f("uq_process_executor_id")),
    )
    op.create_table(
        "compatibility",
        sa.Column("readers_from", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("readers_from", name=op.f("pk_compatibility")),
    )
    op.create_table(
        "takeover",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("executor_id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("by_host", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_takeover")),
        sa.UniqueConstraint("executor_id", name=op.f("uq_takeover_executor_id")),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient_row", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("accession_number", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["patient_row"], ["patient.id"], name=op.f("fk_study_patient_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_study_study_instance_uid")),
    )
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_accession_number"), ["accession_number"], unique=False)

    op.create_table(
        "study_need",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_row", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("met", sa.JSON(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=True),
        sa.Column("on_deadline", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("job_row", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["study_row"], ["study.id"], name=op.f("fk_study_need_study_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_need")),
        sa.UniqueConstraint("study_row", "rule", name=op.f("uq_study_need_study_row_rule")),
    )
    with op.batch_alter_table("study_need", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_need_state_due_at"), ["state", "due_at"], unique=False)

    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_row", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(), nullable=False),
        sa.Column("modality", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("job_row", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("planned_generation", sa.Integer(), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("expected_source", sa.String(), nullable=False),
        sa.Column("quiet_s", sa.Double(), nullable=False),
        sa.Column("released_quiet_s", sa.Double(), nullable=False),
        sa.Column("deadline_s", sa.Double(), nullable=False),
        sa.Column("quiet_min_s", sa.Double(), nullable=False),
        sa.Column("quiet_max_s", sa.Double(), nullable=False),
        sa.Column("longest_s", sa.Double(), nullable=False),
        sa.Column("on_deadline", sa.String(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("close_by", sa.String(), nullable=True),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("verdict", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["study_row"], ["study.id"], name=op.f("fk_series_study_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("study_row", "series_instance_uid", name=op.f("uq_series_study_row_series_instance_uid")),
    )
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_series_series_instance_uid"), ["series_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_series_state_due_at"), ["state", "due_at"], unique=False)
        unplanned = sa.text("planned_generation < generation")
        batch_op.create_index(
            batch_op.f("ix_series_unplanned"),
            ["state", "closed_at"],
            sqlite_where=unplanned,
            postgresql_where=unplanned,
        )

    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_row", sa.Integer(), nullable=False),
        sa.Column("association_row", _LARGE, nullable=True),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(), nullable=False),
        sa.Column("file", sa.String(), nullable=False),
        sa.Column("size_bytes", _LARGE, nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.Column("called_ae", sa.String(), nullable=False),
        sa.Column("source_address", sa.String(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("matched", sa.Boolean(), nullable=False),
        sa.Column("rules_digest", sa.String(), nullable=False),
        sa.Column("kept_back", sa.JSON(), nullable=False),
        sa.Column("derived_by_us", sa.Boolean(), nullable=False),
        sa.Column("position_mm", sa.Double(), nullable=True),
        sa.Column("orientation", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["association_row"], ["association.id"], name=op.f("fk_instance_association_row")),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_instance_series_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint("sop_instance_uid", "version", name=op.f("uq_instance_sop_instance_uid_version")),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_series_row"), ["series_row"], unique=False)

    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_row", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("instance_rows", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("stages", sa.JSON(), nullable=False),
        sa.Column("derived_series", sa.JSON(), nullable=False),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("supersedes", sa.Integer(), nullable=True),
        sa.Column("superseded_by", sa.Integer(), nullable=True),
        sa.Column("review", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_job_series_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("series_row", "generation", "ordinal", name=op.f("uq_job_series_row_generation_ordinal")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_state_review"), ["state", "review"], unique=False)

    op.create_table(
        "plan",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_row", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=False),
        sa.Column("review", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_plan_series_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan")),
        sa.UniqueConstraint("series_row", "generation", name=op.f("uq_plan_series_row_generation")),
    )
    with op.batch_alter_table("plan", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_plan_trouble"), ["trouble"], unique=False)

    op.create_table(
        "purge",
        sa.Column("series_row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("through", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("size_bytes", _LARGE, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_purge_series_row")),
        sa.PrimaryKeyConstraint("series_row", name=op.f("pk_purge")),
    )
    with op.batch_alter_table("purge", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_purge_removed_at"), ["removed_at"], unique=False)

    op.create_table(
        "patient_check",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_row", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("differences", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_row"], ["study.id"], name=op.f("fk_patient_check_study_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient_check")),
        sa.UniqueConstraint("study_row", "destination", name=op.f("uq_patient_check_study_row_destination")),
    )
    op.create_table(
        "disk_use",
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("disk", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("free_bytes", _LARGE, nullable=False),
        sa.Column("total_bytes", _LARGE, nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("machine", "disk", "at", name=op.f("pk_disk_use")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("instance_row", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("after_series", sa.Integer(), nullable=True),
        sa.Column("hold_until", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("confirmed_at", sa.Double(), nullable=True),
        sa.Column("confirmed_by", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["after_series"], ["series.id"], name=op.f("fk_outbox_after_series")),
        sa.ForeignKeyConstraint(["instance_row"], ["instance.id"], name=op.f("fk_outbox_instance_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("instance_row", "destination", name=op.f("uq_outbox_instance_row_destination")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_outbox_destination_state_priority_next_attempt_at"),
            ["destination", "state", "priority", "next_attempt_at"],
            unique=False,
        )

    op.create_table(
        "receipt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("outbox_row", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("meaning", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["outbox_row"], ["outbox.id"], name=op.f("fk_receipt_outbox_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipt")),
    )
    with op.batch_alter_table("receipt", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_receipt_outbox_row"), ["outbox_row"], unique=False)

    op.create_table(
        "proof",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_row", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("began_at", sa.Double(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=True),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("resends", sa.Integer(), nullable=False),
        sa.Column("meaning", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_proof_series_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proof")),
        sa.UniqueConstraint("series_row", "destination", name=op.f("uq_proof_series_row_destination")),
    )
    with op.batch_alter_table("proof", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_proof_destination_due_at"), ["destination", "due_at"], unique=False)

    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("proof_row", sa.Integer(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("outbox_rows", sa.JSON(), nullable=False),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["proof_row"], ["proof.id"], name=op.f("fk_commitment_proof_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_transaction_uid")),
    )
    with op.batch_alter_table("commitment", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_commitment_proof_row"), ["proof_row"], unique=False)

    op.create_table(
        "procedure_step",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("series", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_procedure_step")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_procedure_step_sop_instance_uid")),
    )
    with op.batch_alter_table("procedure_step", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_procedure_step_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "late",
        sa.Column("instance_row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("series_row", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["instance_row"], ["instance.id"], name=op.f("fk_late_instance_row")),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_late_series_row")),
        sa.PrimaryKeyConstraint("instance_row", name=op.f("pk_late")),
    )
    with op.batch_alter_table("late", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_late_series_row"), ["series_row"], unique=False)

    op.create_table(
        "quality_report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_row", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("output", sa.String(), nullable=False),
        sa.Column("series_row", sa.Integer(), nullable=False),
        sa.Column("stack_key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("protocol", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("preset", sa.String(), nullable=False),
        sa.Column("card_digest", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("drifts", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_row"], ["job.id"], name=op.f("fk_quality_report_job_row")),
        sa.ForeignKeyConstraint(["series_row"], ["series.id"], name=op.f("fk_quality_report_series_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_report")),
        sa.UniqueConstraint("job_row", "stage", "output", name=op.f("uq_quality_report_job_row_stage_output")),
    )
    with op.batch_alter_table("quality_report", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quality_report_engine_series_row"), ["engine", "series_row"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_quality_report_peer_device_protocol_engine_preset_at"),
            ["peer", "device", "protocol", "engine", "preset", "at"],
            unique=False,
        )
        batch_op.create_index(batch_op.f("ix_quality_report_series_row"), ["series_row"], unique=False)

    op.create_table(
        "derivation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_row", sa.Integer(), nullable=False),
        sa.Column("instance_row", sa.Integer(), nullable=False),
        sa.Column("source_row", sa.Integer(), nullable=False),
        sa.Column("by_volume", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["instance_row"], ["instance.id"], name=op.f("fk_derivation_instance_row")),
        sa.ForeignKeyConstraint(["job_row"], ["job.id"], name=op.f("fk_derivation_job_row")),
        sa.ForeignKeyConstraint(["source_row"], ["instance.id"], name=op.f("fk_derivation_source_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_derivation")),
        sa.UniqueConstraint("job_row", "instance_row", name=op.f("uq_derivation_job_row_instance_row")),
    )
    with op.batch_alter_table("derivation", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_derivation_instance_row"), ["instance_row"], unique=False)
        batch_op.create_index(batch_op.f("ix_derivation_source_row"), ["source_row"], unique=False)

    op.create_table(
        "withdrawal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_row", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("job_row", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["instance_row"], ["instance.id"], name=op.f("fk_withdrawal_instance_row")),
        sa.ForeignKeyConstraint(["job_row"], ["job.id"], name=op.f("fk_withdrawal_job_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawal")),
        sa.UniqueConstraint("instance_row", name=op.f("uq_withdrawal_instance_row")),
    )
    with op.batch_alter_table("withdrawal", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_withdrawal_settled"), ["settled"], unique=False)

    op.create_table(
        "withdrawal_note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("withdrawal_row", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("note_row", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["note_row"], ["instance.id"], name=op.f("fk_withdrawal_note_note_row")),
        sa.ForeignKeyConstraint(["withdrawal_row"], ["withdrawal.id"], name=op.f("fk_withdrawal_note_withdrawal_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawal_note")),
        sa.UniqueConstraint(
            "withdrawal_row", "destination", name=op.f("uq_withdrawal_note_withdrawal_row_destination")
        ),
    )
    with op.batch_alter_table("withdrawal_note", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_withdrawal_note_note_row"), ["note_row"], unique=False)

    op.create_table(
        "rejection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_row", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("read_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["instance_row"], ["instance.id"], name=op.f("fk_rejection_instance_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejection")),
        sa.UniqueConstraint("instance_row", name=op.f("uq_rejection_instance_row")),
    )
    with op.batch_alter_table("rejection", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rejection_state"), ["state"], unique=False)

    op.create_table(
        "rejected_instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rejection_row", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["rejection_row"], ["rejection.id"], name=op.f("fk_rejected_instance_rejection_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_instance")),
        sa.UniqueConstraint(
            "rejection_row", "sop_instance_uid", name=op.f("uq_rejected_instance_rejection_row_sop_instance_uid")
        ),
    )
    with op.batch_alter_table("rejected_instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rejected_instance_sop_instance_uid"), ["sop_instance_uid"], unique=False)
    op.create_table(
        "retrieval",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("accession_number", sa.String(), nullable=False),
        sa.Column("series_instance_uids", sa.JSON(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("used", sa.String(), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("held", sa.Integer(), nullable=True),
        sa.Column("missing", sa.JSON(), nullable=False),
        sa.Column("sub_operations", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval")),
    )
    with op.batch_alter_table("retrieval", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_retrieval_state_next_attempt_at"), ["state", "next_attempt_at"], unique=False
        )

    op.create_table(
        "retrieval_series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("retrieval_row", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("series_instance_uid", sa.String(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=True),
        sa.Column("sop_class_uids", sa.JSON(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["retrieval_row"], ["retrieval.id"], name=op.f("fk_retrieval_series_retrieval_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval_series")),
        sa.UniqueConstraint(
            "retrieval_row", "series_instance_uid", name=op.f("uq_retrieval_series_retrieval_row_series_instance_uid")
        ),
    )
    with op.batch_alter_table("retrieval_series", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_retrieval_series_series_instance_uid"), ["series_instance_uid"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("retrieval_series", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_retrieval_series_series_instance_uid"))

    op.drop_table("retrieval_series")
    with op.batch_alter_table("retrieval", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_retrieval_state_next_attempt_at"))

    op.drop_table("retrieval")

    with op.batch_alter_table("rejected_instance", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rejected_instance_sop_instance_uid"))

    op.drop_table("rejected_instance")
    with op.batch_alter_table("rejection", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rejection_state"))

    op.drop_table("rejection")
    with op.batch_alter_table("withdrawal_note", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_withdrawal_note_note_row"))

    op.drop_table("withdrawal_note")
    with op.batch_alter_table("withdrawal", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_withdrawal_settled"))

    op.drop_table("withdrawal")
    with op.batch_alter_table("derivation", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_derivation_source_row"))
        batch_op.drop_index(batch_op.f("ix_derivation_instance_row"))

    op.drop_table("derivation")
    with op.batch_alter_table("quality_report", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_quality_report_series_row"))
        batch_op.drop_index(batch_op.f("ix_quality_report_peer_device_protocol_engine_preset_at"))
        batch_op.drop_index(batch_op.f("ix_quality_report_engine_series_row"))

    op.drop_table("quality_report")
    with op.batch_alter_table("late", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_late_series_row"))

    op.drop_table("late")
    with op.batch_alter_table("procedure_step", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_procedure_step_study_instance_uid"))

    op.drop_table("procedure_step")
    with op.batch_alter_table("commitment", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_commitment_proof_row"))

    op.drop_table("commitment")
    with op.batch_alter_table("proof", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_proof_destination_due_at"))

    op.drop_table("proof")

    with op.batch_alter_table("receipt", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_receipt_outbox_row"))

    op.drop_table("receipt")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_outbox_destination_state_priority_next_attempt_at"))

    op.drop_table("outbox")
    op.drop_table("disk_use")
    op.drop_table("patient_check")
    with op.batch_alter_table("purge", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_purge_removed_at"))

    op.drop_table("purge")
    with op.batch_alter_table("plan", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_plan_trouble"))

    op.drop_table("plan")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_state_review"))

    op.drop_table("job")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_instance_series_row"))

    op.drop_table("instance")
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_series_unplanned"))
        batch_op.drop_index(batch_op.f("ix_series_state_due_at"))
        batch_op.drop_index(batch_op.f("ix_series_series_instance_uid"))

    op.drop_table("series")
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_accession_number"))

    op.drop_table("study")
    op.drop_table("takeover")
    op.drop_table("compatibility")
    op.drop_table("process")
    op.drop_table("patient")
    with op.batch_alter_table("action", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_action_subject"))
        batch_op.drop_index(batch_op.f("ix_action_at"))

    op.drop_table("action")
    with op.batch_alter_table("pause", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_pause_destination_resumed_at"))

    op.drop_table("pause")
    op.drop_table("destination")
    with op.batch_alter_table("association", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_association_ended_at"))

    op.drop_table("association")
