"""What fitted models say: of the hidden Markov regimes and of the correlations."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

REGIMES = (
    ("previous", "text"),
    ("bars_since_change", "bigint not null default 0"),
    ("expected_duration", "double precision not null default 0"),
    ("states", "text[] not null default '{}'"),
    ("transition", "double precision[] not null default '{}'"),
    ("features", "jsonb not null default '{}'"),
    ("log_likelihood", "double precision not null default 0"),
    ("fit_converged", "boolean not null default true"),
)
CORRELATIONS = (
    ("eigenvalues", "double precision[] not null default '{}'"),
    ("explained", "double precision[] not null default '{}'"),
    ("diversification_ratio", "double precision not null default 1"),
    ("effective_bets", "double precision not null default 1"),
    ("fit_age_us", "bigint"),
    ("fit_converged", "boolean"),
    ("fit_status", "text not null default ''"),
    ("log_likelihood", "double precision"),
    ("hmm_fit", "bigint"),
    ("unfitted", "text[] not null default '{}'"),
    ("clipped", "integer not null default 0"),
    ("tail_dependence", "double precision[] not null default '{}'"),
    ("stress_correlations", "double precision[] not null default '{}'"),
    ("stress_window", "bigint[] not null default '{}'"),
)


def upgrade() -> None:
    for table, columns in (("market_regimes_hmm", REGIMES), ("market_correlations", CORRELATIONS)):
        op.execute(f"alter table {table} " + ", ".join(f"add column {name} {kind}" for name, kind in columns))


def downgrade() -> None:
    for table, columns in (("market_regimes_hmm", REGIMES), ("market_correlations", CORRELATIONS)):
        op.execute(f"alter table {table} " + ", ".join(f"drop column {name}" for name, _ in columns))
