"""From the dead letters back to where it belongs, once: what docs/dead-letters.md tells, on a real Kafka."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from typer.testing import CliRunner

from headrace import compare, dead_letters, redrive, repair, topics
from headrace.cli import app
from headrace.compare import Results
from headrace.dead_letters import DeadLetterError
from headrace.fleet import headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.reading import Reading
from headrace.redrive import Done, KafkaOutbox
from headrace.stack import Endpoints
from schemas.codec import decode_body
from schemas.partitioner import partition_of
from schemas.records import Bar, Command, DeadLetter, LateTick, Record, RiskAlert, Tick, TradingState
from schemas.topics import physical
from streams.runtime.inline import Inline
from streams.runtime.kafka import output_settings
from streams.symbols import Symbols
from tests.examples import DAY0, MINUTE, SECOND, tick
from tests.pipeline import KafkaRun

SYMBOLS = ("A", "B", "C")
SECONDS = 150
"""The feed stands in the middle of its third minute."""
BAD = 12
"""Bad ticks of each of B and C, one every ten seconds."""
SCRIPT = re.findall(
    r"^```python\n(.*?)^```$",
    (Path(__file__).parents[2] / "docs" / "dead-letters.md").read_text("utf-8"),
    re.M | re.S,
)
SETTINGS = PipelineSettings.model_validate(
    {
        "market": {"sources": [{"name": "test"}]},
        "universes": [{"name": "north", "symbols": list(SYMBOLS)}],
        "portfolios": [
            {"name": "alpha", "universe": "north", "strategies": [{"name": "momentum", "uses": "momentum"}]}
        ],
    }
)


class Feed:
    """Writes to the input topics as a feed does."""

    def __init__(self, run: KafkaRun) -> None:
        self._run = run
        self._producer = ck.Producer(output_settings(run.stack.kafka))
        self._topic = physical(run.namespace, "market.ticks")

    def tick(self, record: Tick) -> None:
        self.raw(self._run.codec.encode("market.ticks", record), record.symbol, record.event_time)

    def raw(self, value: bytes | None, key: str | None, time_us: int, **over: Any) -> None:
        self._producer.produce(self._topic, value, key, timestamp=time_us // 1000, **over)

    def clock(self, time_us: int) -> None:
        for partition in range(4):
            self.raw(None, None, time_us, partition=partition, headers=[("source", b"test")])

    def flush(self) -> None:
        assert self._producer.flush(30) == 0


def at(second: float) -> int:
    return DAY0 + int(second * SECOND)


def feed(run: KafkaRun) -> None:
    """A tick of each symbol a second, and the bad ones among them, each a name further in the same session."""
    out = Feed(run)
    for second in range(SECONDS):
        out.clock(at(second))
        for symbol in SYMBOLS:
            out.tick(tick(symbol, at(second + 0.1), sequence=10 * second))
        name = 10 * second + 1
        if second == 30:
            out.tick(tick("A", at(30.5), math.nan, name))
        if second == 140:
            out.tick(tick("A", at(140.5), -1.0, name))
            out.tick(tick("A", at(140.6), sequence=name + 1, source="stranger"))
            out.tick(tick("A", at(86_400), sequence=name + 2))
            out.raw(b"no Avro", "A", at(140.7))
            misplaced = run.codec.encode("market.ticks", tick("B", at(140.8), sequence=name))
            out.raw(misplaced, "A", at(140.8))
            out.raw(None, None, at(140.9), partition=0)
        if second % 10 == 5 and second < 10 * BAD:
            out.tick(tick("B", at(second + 0.5), size=-1.0, sequence=name))
            out.tick(tick("C", at(second + 0.5), size=-1.0, sequence=name))
    out.clock(at(SECONDS))
    out.flush()
    stray = Command(portfolio="beta", id="stop-1", state=TradingState.HALTED, reason="test", issued_at=DAY0)
    run.send("portfolio.events", "beta", stray)


@pytest.fixture(scope="module")
def run(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    namespace = f"t{uuid.uuid4().hex[:12]}"
    with KafkaRun(stack, namespace, SETTINGS, tmp_path_factory.mktemp("run"), with_sink=False) as run:
        run.agents = ("symbols", "portfolios")
        feed(run)
        run.start()
        run.settle()
        yield run
    topics.delete(stack.kafka, namespace)


def headrace(run: KafkaRun, *arguments: str, status: int = 0) -> str:
    """What a command prints."""
    told = CliRunner().invoke(app, arguments, env=run.environment())
    assert told.exit_code == status, (arguments, told.output, told.exception)
    return told.output


def listed(run: KafkaRun, *arguments: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in headrace(run, "dead-letters", "list", "--json", *arguments).splitlines()
    ]


def letter(run: KafkaRun, symbol: str, error: str) -> str:
    """The id of the one letter of a symbol whose error begins so."""
    (found,) = [each for each in listed(run) if each["key"] == symbol and each["error"].startswith(error)]
    return str(found["id"])


def written(run: KafkaRun, topic: str, kind: type[Record]) -> list[Any]:
    found = (
        decode_body(topic, (value or b"")[5:])
        for _, value, _ in compare.records(run.stack.kafka, run.namespace, topic)
    )
    return [record for record in found if isinstance(record, kind)]


def counted(results: Results, symbol: str, kind: str) -> dict[int, int]:
    """Ticks in each bar of a symbol, by the bar's start in minutes."""
    bars = (decode_body("market.bars", body) for body, _ in results.sequences["market.bars", symbol].values())
    return {
        (bar.start - DAY0) // MINUTE: bar.count for bar in bars if isinstance(bar, Bar) and bar.kind == kind
    }


def oracle(run: KafkaRun, namespace: str) -> Results:
    """What the symbols agent makes of a namespace's ticks once everything has closed."""
    results = Results()
    runner = Inline([Symbols()], SETTINGS.record(), results.output)
    for message in compare.messages(run.stack.kafka, physical(namespace, "market.ticks")):
        if message.offset():
            value = message.value()
            decoded: Any = None if value is None else run.codec.decode("market.ticks", value)
            headers = tuple(message.headers() or ())
            place = message.partition(), message.key(), decoded, value, message.timestamp()[1], headers
            runner.raw("market.ticks", *place)
    runner.clock("test", at(600) // 1000)
    runner.flush()
    return results


def test_letters_are_listed_by_what_is_asked_for(run: KafkaRun) -> None:
    whole = headrace(run, "dead-letters", "list")
    told = {words: int(count) for count, words in re.findall(r"^ +([0-9]+)  (.*)$", whole, re.M)}
    assert told == {
        "portfolios: UNDECLARED_KEY": 1,
        "symbols: AHEAD_OF_CLOCK": 1,
        "symbols: BAD_CLOCK": 1,
        "symbols: BAD_KEY": 1,
        "symbols: BAD_PRICE": 2,
        "symbols: BAD_SIZE": 2 * BAD,
        "symbols: UNDECLARED_SOURCE": 1,
        "symbols: UNREADABLE": 1,
    }
    assert len({each["id"] for each in listed(run)}) == sum(told.values())
    early = listed(run, "--reason", "bad_price", "--until", "2013-10-07T08:01")
    assert [(each["symbol"], each["event_time"]) for each in early] == [("A", "2013-10-07 08:00:30.5")]
    assert len(listed(run, "--topic", "portfolio.events")) == len(listed(run, "--stage", "portfolios")) == 1
    latest = listed(run, "--limit", "1", "--since", "2013-10-07T08:02")
    assert [each["reason"] for each in latest] == ["AHEAD_OF_CLOCK"]
    few = headrace(run, "dead-letters", "list", "--limit", "3", "--reason", "BAD_SIZE")
    assert "and 21 before them" in few
    assert few.count("BAD_SIZE") == 3 + 1


def test_a_letter_is_shown_whole(run: KafkaRun) -> None:
    shown = headrace(run, "dead-letters", "show", letter(run, "A", "price nan"))
    assert re.search(r"^  price +nan$", shown, re.M)
    assert re.search(r"^from +market\.ticks\[[0-3]\]@[0-9]+$", shown, re.M)
    shown = headrace(run, "dead-letters", "show", letter(run, "A", "no Confluent frame"))
    assert "6e 6f 20 41 76 72 6f" in shown
    assert "no Avro" in shown


def test_a_repaired_tick_counts_once_in_open_bars_and_is_late_for_the_others(
    run: KafkaRun, tmp_path: Path
) -> None:
    file = tmp_path / "bad.jsonl"
    headrace(run, "dead-letters", "export", str(file), "--reason", "BAD_PRICE")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 2
    refused = headrace(run, "dead-letters", "redrive", lines[-1]["id"], "--set", "price=-2", status=1)
    assert "BAD_PRICE: price -2.0 is not above 0" in refused
    for line in lines:
        line["record"]["price"] = 100.5
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    end = run.end("market.ticks")
    dry = headrace(run, "dead-letters", "redrive", "--from", str(file), "--dry-run")
    first, second, total = dry.splitlines()
    late = "late for {}: closed by the partition's clock"
    assert first.endswith(late.format("time:1s, time:1m"))
    assert "test/redrive/1" in first
    assert second.endswith(late.format("time:1s"))
    assert "test/redrive/2" in second
    assert total == "2 would be sent"
    assert run.end("market.ticks") == end

    sent = headrace(run, "dead-letters", "redrive", "--from", str(file))
    assert [line.partition(": ")[2].partition(" → ")[0] for line in sent.splitlines()[:2]] == [
        line.partition(": ")[2].partition(" → ")[0] for line in (first, second)
    ]
    again = headrace(run, "dead-letters", "redrive", "--from", str(file))
    assert again.splitlines()[-1] == "2 was there already"
    assert sum(run.end("market.ticks")) == sum(end) + 2

    run.settle()
    ticks = [each for each in written(run, "market.ticks.late", LateTick) if each.symbol == "A"]
    assert [(each.name, each.kinds) for each in ticks] == [
        ("test/redrive/1", ("time:1s", "time:1m")),
        ("test/redrive/2", ("time:1s",)),
    ]
    results = oracle(run, run.namespace)
    assert counted(results, "A", "time:1m") == {0: 60, 1: 60, 2: 31}
    assert counted(results, "A", "time:5m") == {0: SECONDS + 2}


def test_what_could_not_be_read_is_written_anew(run: KafkaRun) -> None:
    fields = {
        "symbol": "D",
        "source": "test",
        "event_time": "2013-10-07T08:02:20",
        "price": "7",
        "size": "100",
    }
    unreadable = letter(run, "A", "no Confluent frame")
    sets = [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]
    told = headrace(run, "dead-letters", "redrive", unreadable, *sets)
    assert f"market.ticks[{partition_of('D', 4)}]@" in told
    # To another symbol, it would go to another partition: it is looked for in all of them.
    sets[1] = "symbol=E"
    assert "was there already" in headrace(run, "dead-letters", "redrive", unreadable, *sets)
    assert counted(oracle(run, run.namespace), "D", "time:5m") == {0: 1}


def test_a_tick_under_the_wrong_key_goes_to_its_own(run: KafkaRun) -> None:
    (wrong,) = (each["id"] for each in listed(run, "--reason", "BAD_KEY"))
    before = counted(oracle(run, run.namespace), "B", "time:5m")[0]
    assert f"market.ticks[{partition_of('B', 4)}]@" in headrace(run, "dead-letters", "redrive", wrong)
    assert counted(oracle(run, run.namespace), "B", "time:5m")[0] == before + 1


@pytest.mark.parametrize(
    ("key", "error", "why"),
    [
        ("A", "source 'stranger'", "UNDECLARED_SOURCE: source 'stranger' is not in the settings"),
        ("A", "event_time", "AHEAD_OF_CLOCK"),
    ],
)
def test_what_would_come_back_is_not_sent(run: KafkaRun, key: str, error: str, why: str) -> None:
    end = run.end("market.ticks")
    assert why in headrace(run, "dead-letters", "redrive", letter(run, key, error), status=1)
    assert run.end("market.ticks") == end


def test_a_clock_has_no_place_to_go_back_to(run: KafkaRun) -> None:
    (clock,) = (each["id"] for each in listed(run, "--reason", "BAD_CLOCK"))
    told = CliRunner().invoke(app, ["dead-letters", "redrive", clock], env=run.environment())
    assert isinstance(told.exception, DeadLetterError)
    assert "the next clock of its source" in str(told.exception)


def test_a_command_is_told_once(run: KafkaRun) -> None:
    (stray,) = (each["id"] for each in listed(run, "--stage", "portfolios"))
    refused = headrace(run, "dead-letters", "redrive", stray, status=1)
    assert "UNDECLARED_KEY: no portfolio 'beta'" in refused
    for told in ("sent: alpha", "was there already"):
        assert told in headrace(run, "dead-letters", "redrive", stray, "--set", "portfolio=alpha")
    run.settle()
    alerts = written(run, "risk.alerts", RiskAlert)
    assert [(alert.command_id, alert.state) for alert in alerts] == [("stop-1", TradingState.HALTED)]


def repairs(run: KafkaRun, symbol: str) -> list[repair.Repair]:
    with Reading(run.stack.kafka, run.namespace) as reading:
        letters = [
            each
            for each in dead_letters.read(reading, run.codec)
            if each.record.symbol == symbol and each.record.reason == "BAD_SIZE"
        ]
    return [repair.edited(run.codec, each, {"size": "100"}) for each in letters]


def redriven(run: KafkaRun, symbol: str) -> int:
    """Records of a symbol in its partition that bear a letter's id."""
    return sum(
        message.key() == symbol.encode() and "dead-letter" in dict(message.headers() or ())
        for message in compare.messages(run.stack.kafka, physical(run.namespace, "market.ticks"))
    )


def test_of_several_that_send_at_once_every_letter_counts_once(run: KafkaRun) -> None:
    """They have different letters in common, so that they choose the same names for different ones."""
    found = repairs(run, "B")
    assert len(found) == BAD
    before = counted(oracle(run, run.namespace), "B", "time:5m")[0]
    shares = [found[: BAD - 4], found[4:], found[::2], found]
    outcomes: list[list[redrive.Outcome]] = [[] for _ in shares]
    together = threading.Barrier(len(shares))

    def send(share: list[repair.Repair], told: list[redrive.Outcome]) -> None:
        together.wait()
        outbox = KafkaOutbox(run.stack.kafka, run.namespace)
        with Reading(run.stack.kafka, run.namespace) as reading:
            told += redrive.redrive(reading, outbox, run.codec, share)

    threads = [threading.Thread(target=send, args=each) for each in zip(shares, outcomes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    everyones = [outcome for told in outcomes for outcome in told]
    assert [len(told) for told in outcomes] == [len(share) for share in shares]
    assert {outcome.done for outcome in everyones} == {Done.SENT, Done.ALREADY}
    sent = [outcome for outcome in everyones if outcome.done is Done.SENT]
    assert len(sent) == len({outcome.repair.letter.id for outcome in sent}) == BAD
    assert len({outcome.record for outcome in sent}) == BAD
    assert redriven(run, "B") > BAD + 1, "none came between another: nothing was tried"
    assert counted(oracle(run, run.namespace), "B", "time:5m")[0] == before + BAD


def test_killed_in_the_middle_and_run_again_every_letter_counts_once(run: KafkaRun, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    headrace(run, "dead-letters", "export", str(file), "--reason", "BAD_SIZE")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    own = [{**line, "record": {**line["record"], "size": 100.0}} for line in lines if line["symbol"] == "C"]
    file.write_text("".join(json.dumps(line) + "\n" for line in own))
    argv = headrace_argv("dead-letters", "redrive", "--from", str(file))
    with subprocess.Popen(argv, env=run.environment(), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while redriven(run, "C") < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None, "it had done before it was killed"
        process.send_signal(signal.SIGKILL)
    done = redriven(run, "C")
    assert 3 <= done < BAD, "it had done before it was killed"
    told = headrace(run, "dead-letters", "redrive", "--from", str(file))
    assert f"{BAD - done} sent" in told
    assert f"{done} was there already" in told
    assert counted(oracle(run, run.namespace), "C", "time:5m") == {0: SECONDS + BAD}


def test_corrected_bars_come_of_another_history(run: KafkaRun, namespace: str, tmp_path: Path) -> None:
    """The script of the docs, over what the tests before have left."""
    (script,) = SCRIPT
    path = tmp_path / "resend.py"
    path.write_text(script)
    topics.create(run.stack.kafka, namespace, SETTINGS.record(), run.codec)
    names = (physical(each, "market.ticks") for each in (run.namespace, namespace))
    subprocess.run([sys.executable, str(path), run.stack.kafka, *names], check=True, timeout=60)
    before, after = oracle(run, run.namespace), oracle(run, namespace)
    assert counted(before, "A", "time:1m") == {0: 60, 1: 60, 2: 31}
    assert counted(after, "A", "time:1m") == {0: 61, 1: 60, 2: 31}
    assert counted(after, "C", "time:1m") == {0: 66, 1: 66, 2: 30}
    assert after.count("market.ticks.late") == 0
    assert before.count("market.ticks.late") > 0
    assert len(written(run, "system.dead_letters", DeadLetter)) == sum(1 for _ in after.dead_letters) + 1
