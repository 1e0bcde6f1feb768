"""Whose offsets they are: the broker's id of each topic, since a topic made again has the name of another."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table sink_offsets add column topic_id text not null default ''")


def downgrade() -> None:
    op.execute("alter table sink_offsets drop column topic_id")
