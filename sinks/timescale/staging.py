"""The statements that bring a batch of one table from binary COPY into its hypertable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

from psycopg import sql

from sinks.timescale.results import Result


class Staging:
    """A result's temporary table and what is done with it.

    A staged row is its number in the transaction and the row itself. All take the numbers ``first`` and
    ``end`` (exclusive) between which they work; ``report`` also takes the times ``low`` and ``high`` that
    ``span`` gives.
    """

    def __init__(self, result: Result) -> None:
        held = sql.Identifier(result.table.name)
        staged = sql.Identifier(f"staged_{result.table.name}")
        columns = _list(column.name for column in result.table.columns)
        identity = ("run", *result.identity)
        part = sql.SQL("s.n >= %(first)s and s.n < %(end)s")
        same = sql.SQL(" and ").join(
            sql.SQL("h.{0} = s.{0}").format(sql.Identifier(name)) for name in identity
        )

        self.create = sql.SQL("create temporary table {} (n bigint, like {}) on commit delete rows").format(
            staged, held
        )
        self.copy = sql.SQL("copy {} from stdin (format binary)").format(staged)
        if result.time in identity:
            first_copies = sql.SQL("select * from {} s where {}").format(staged, part)
        else:
            # The unique constraint holds the time too, so it lets a copy with another time pass.
            first_copies = sql.SQL(
                "select * from"
                " (select distinct on ({identity}) * from {staged} s where {part} order by {identity}, n) s"
                " where not exists (select from {held} h where {same})"
            ).format(identity=_list(identity), staged=staged, part=part, held=held, same=same)
        self.insert = sql.SQL(
            "insert into {held} ({columns}) select {columns} from ({first_copies}) s order by {identity}, n"
            " on conflict do nothing"
        ).format(held=held, columns=columns, first_copies=first_copies, identity=_list(identity))
        time = sql.Identifier(result.time)
        self.span = sql.SQL("select min({0})::text, max({0})::text from {1} s where {2}").format(
            time, staged, part
        )
        # Told as constants, the times spare the join a look into every chunk.
        near = sql.SQL("h.{0} between %(low)s::timestamptz and %(high)s::timestamptz").format(time)
        self.report = sql.SQL(
            "insert into sink_conflicts (run, table_name, held, copy)"
            " select s.run, {name}, to_jsonb(h), to_jsonb(s) - 'n' from {staged} s join {held} h on {same}"
            " where {part} and {near} and row({ours}) is distinct from row({theirs})"
        ).format(
            name=sql.Literal(result.table.name),
            staged=staged,
            held=held,
            same=same,
            part=part,
            near=near if result.time in identity else sql.SQL("true"),
            ours=_list(result.compared, "h."),
            theirs=_list(result.compared, "s."),
        )


def _list(names: Iterable[str], prefix: LiteralString = "") -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(prefix) + sql.Identifier(name) for name in names)
