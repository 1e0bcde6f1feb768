"""`headrace dead-letters`: look at bad input, take it out for repair, and put it where it belongs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace import moments, settings
from headrace.cli.times import micros
from schemas.records import Reason
from streams.runtime import registry

if TYPE_CHECKING:
    from headrace.dead_letters import Choice, Letter
    from headrace.reading import Reading
    from headrace.redrive import Outcome
    from headrace.repair import Repair
    from schemas.codec import Codec

app = typer.Typer(no_args_is_help=True, help="Look at bad input, repair it, and put it where it belongs.")

_HEX_BYTES = 512
_ERROR_CHARS = 70
_SHOWN = 100
_WIDE = 1_000
"""Columns: a letter is a line, which a narrow terminal breaks as it will."""

_Stage = Annotated[str | None, typer.Option(help="Who refused it: symbols, quotes, signals, files, …")]
_Reason = Annotated[Reason | None, typer.Option(help="Why.", case_sensitive=False)]
_Topic = Annotated[
    str | None, typer.Option(help="Where it came from: market.ticks, … or the name of a file.")
]
_Since = Annotated[str | None, typer.Option(help="From this event time on: 2024-01-02T14:30, UTC.")]
_Until = Annotated[str | None, typer.Option(help="Before this event time.")]
_Id = Annotated[str, typer.Argument(help="As `list` shows it; its beginning will do.", show_default=False)]


class _Open(NamedTuple):
    bootstrap: str
    namespace: str
    codec: Codec
    reading: Reading


@app.command("list")
def list_(
    stage: _Stage = None,
    reason: _Reason = None,
    topic: _Topic = None,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show the latest so many. [default: 100; with --json all]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="An object a line, without the counts.")] = False,
) -> None:
    """What lies in the dead letters, in order of event time, and how much of each reason.

    Examples:

        headrace dead-letters list

        headrace dead-letters list --stage symbols --reason BAD_PRICE --since 2024-01-02T14:30

        headrace dead-letters list --json | jq -r .error
    """
    from headrace import dead_letters

    counts: Counter[tuple[str, str]] = Counter()
    shown: list[Letter] = []
    with _opened() as (_, _, codec, reading):
        for letter in dead_letters.read(reading, codec, _choice(stage, reason, topic, since, until)):
            counts[letter.record.stage, letter.record.reason] += 1
            shown.append(letter._replace(record=msgspec.structs.replace(letter.record, value=None)))
    shown.sort(key=lambda letter: (letter.time_us, letter.partition, letter.offset))
    if limit is None and not as_json:
        limit = _SHOWN
    if limit is not None:
        del shown[:-limit]
    if as_json:
        for letter in shown:
            typer.echo(msgspec.json.encode(dead_letters.summary(letter)))
        return
    if not counts:
        typer.echo("no dead letters")
        return
    console = Console(width=_WIDE)
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "event time", "stage", "reason", "from", "symbol or key", "error"):
        table.add_column(heading)
    for letter in shown:
        record = letter.record
        error = record.error if len(record.error) <= _ERROR_CHARS else record.error[: _ERROR_CHARS - 1] + "…"
        when = moments.shown(letter.time_us)
        cells = (letter.id, when, record.stage, record.reason, letter.source, letter.subject, error)
        table.add_row(*map(_plain, cells))
    console.print(table)
    left = sum(counts.values()) - len(shown)
    if left:
        console.print(f"… and {left:,} before them (--limit)", style="dim")
    typer.echo()
    for (stage_, reason_), count in sorted(counts.items()):
        typer.echo(f"{count:>9,}  {stage_}: {reason_}")


@app.command()
def show(letter: _Id) -> None:
    """Everything about one: why, where it came from, and its value: decoded, or as bytes and text.

    Example:

        headrace dead-letters show 3f2a
    """
    from headrace import dead_letters
    from schemas.codec import Unreadable

    with _opened() as (_, _, codec, reading):
        found = dead_letters.find(dead_letters.read(reading, codec), [letter])[letter]
        content = dead_letters.decoded(codec, found.record)
    record, value = found.record, found.record.value
    for name, told in (
        ("id", found.id),
        ("event time", moments.shown(found.time_us)),
        ("stage", record.stage),
        ("reason", record.reason),
        ("error", record.error),
        ("input", record.input),
        ("from", found.source),
        ("letter", f"system.dead_letters[{found.partition}]@{found.offset}"),
        ("symbol", record.symbol or "–"),
        ("key", dead_letters.key_text(record.key)),
        (
            "value",
            f"{record.value_size:,} bytes" + ("" if found.is_whole else f", {len(value or b''):,} kept"),
        ),
    ):
        typer.echo(f"{name:<12}{told}")
    typer.echo()
    if not isinstance(content, Unreadable):
        typer.echo(f"{type(content).__name__}")
        for name, told in msgspec.structs.asdict(content).items():
            typer.echo(f"  {name:<14}{told}")
    elif value is not None:
        typer.echo(f"not readable: {content.error}")
        for line in _dump(value[:_HEX_BYTES]):
            typer.echo(line)
        if len(value) > _HEX_BYTES:
            typer.echo(f"… {len(value) - _HEX_BYTES:,} bytes more: `headrace dead-letters export` has them")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Written anew; - is standard output.", show_default=False)],
    stage: _Stage = None,
    reason: _Reason = None,
    topic: _Topic = None,
    since: _Since = None,
    until: _Until = None,
) -> None:
    """Write letters as lines of JSON, to be repaired by hand or by a script, and for `redrive --from`.

    `record` is what could be read, `value` all of it in base64. A repair changes `record`, or writes one where it is
    null; the rest is only told. Lines that are taken out are left alone.

    Examples:

        headrace dead-letters export bad.jsonl --reason BAD_PRICE

        headrace dead-letters export - | jq .record
    """
    from headrace import dead_letters

    count = 0
    with _opened() as (_, _, codec, reading), _written(file) as out:
        for letter in dead_letters.read(reading, codec, _choice(stage, reason, topic, since, until)):
            out.write(dead_letters.exported(codec, letter))
            count += 1
    typer.echo(f"{count:,} dead letters written", err=True)


@app.command()
def redrive(
    letter: Annotated[
        str | None,
        typer.Argument(help="One, as `list` shows it; its beginning will do.", show_default=False),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of its record anew; may come often."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--from", help="All lines of an edited export.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; show what would be sent, and what it comes to.")
    ] = False,
) -> None:
    """Put repaired records where they belong, once: what was re-driven before is not sent again.

    Ticks and quotes get a name of their own (session `redrive`), which also stands in the bars that they make. Each
    is first held against the settings and clocks that its agent has: one that would come back is refused. A tick
    whose bar has closed goes to market.ticks.late.

    Exit status: 0 when all are where they belong, 1 where one was refused.

    Examples:

        headrace dead-letters redrive 3f2a --set price=101.25 --dry-run

        headrace dead-letters redrive --from repaired.jsonl
    """
    from headrace import redrive as redriving
    from headrace.redrive import Done, KafkaOutbox

    if (letter is None) is (file is None):
        raise typer.BadParameter("name a letter, or --from a file")
    if file is not None and sets:
        raise typer.BadParameter("--set goes with one letter; in a file, edit `record`")
    counts: Counter[Done] = Counter()
    with _opened() as (bootstrap, namespace, codec, reading):
        repairs = _repairs(codec, reading, letter, _edits(sets or ()), file)
        outbox = None if dry_run else KafkaOutbox(bootstrap, namespace)
        for outcome in redriving.redrive(reading, outbox, codec, repairs):
            counts[outcome.done] += 1
            typer.echo(_told(outcome))
    if len(repairs) != 1:
        typer.echo(", ".join(f"{count:,} {done}" for done, count in counts.items()) or "nothing to re-drive")
    if counts[Done.REFUSED]:
        raise typer.Exit(1)


def _repairs(
    codec: Codec, reading: Reading, letter: str | None, edits: dict[str, str], file: Path | None
) -> list[Repair]:
    from headrace import dead_letters, repair

    if file is None:
        assert letter is not None
        found = dead_letters.find(dead_letters.read(reading, codec), [letter])
        return [repair.edited(codec, found[letter], edits)]
    lines = list(dead_letters.repaired_lines(file))
    if not lines:
        return []
    found = dead_letters.find(dead_letters.read(reading, codec), (line.id for line in lines))
    return [repair.rewritten(codec, found[line.id], line.record) for line in lines]


def _edits(sets: list[str] | tuple[()]) -> dict[str, str]:
    edits = {}
    for each in sets:
        name, equals, value = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {each}: write field=value")
        edits[name.strip()] = value
    return edits


def _told(outcome: Outcome) -> str:
    from headrace.redrive import Done
    from schemas.records import Command

    repair, record = outcome.repair, outcome.record
    parts = [repair.key, moments.shown(repair.time_us)]
    if isinstance(record, Command):
        parts.append(record.id)
    elif outcome.done in (Done.SENT, Done.READY):  # otherwise it has not taken this name
        parts.append(f"{record.source}/{record.session}/{record.sequence}")
    return f"{repair.letter.id}  {outcome.done}: {' '.join(parts)} → {outcome.place}; {outcome.told}"


def _choice(
    stage: str | None, reason: Reason | None, topic: str | None, since: str | None, until: str | None
) -> Choice:
    from headrace.dead_letters import Choice

    return Choice(stage, reason, topic, micros(since), micros(until))


@contextmanager
def _opened() -> Iterator[_Open]:
    """What all commands need."""
    from headrace.reading import Reading

    loaded = settings.load()
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace, attempts=3)
    with Reading(found.kafka, loaded.namespace) as reading:
        yield _Open(found.kafka, loaded.namespace, codec, reading)


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdout.buffer
    else:
        with file.open("wb") as out:
            yield out


def _dump(value: bytes) -> Iterator[str]:
    """Offset, bytes and text, sixteen a line."""
    for at in range(0, len(value), 16):
        part = value[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in part)
        yield f"  {at:06x}  {part.hex(' '):<47}  {text}"


def _plain(text: Any) -> str:
    """Without meaning to rich: errors quote their input, brackets and all."""
    from rich.markup import escape

    return escape(str(text))
