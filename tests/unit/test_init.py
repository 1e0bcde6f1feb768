"""`headrace init`: the file loads as it is, tells every setting, and its defaults are the true ones."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from headrace import settings
from headrace.cli.init import SettingsExist, init
from headrace.settings import Settings
from streams.signals.momentum import MomentumParameters
from streams.signals.reversion import ReversionParameters

DEFAULT = re.compile(r"^#(?=\w+ = )", re.MULTILINE)
EXAMPLE = re.compile(r"^# (?=\w+ = )", re.MULTILINE)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "headrace.toml"
    init(path)
    return path


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HEADRACE_SETTINGS", str(path))
    return settings.load()


def test_the_file_loads_as_it_is_and_changes_only_its_example(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent.parent)
    plain = Settings()
    read = loaded(file, monkeypatch)
    for name in Settings.model_fields.keys() - {"pipeline"}:
        assert getattr(read, name) == getattr(plain, name), name
    assert read.pipeline.market == plain.pipeline.market
    assert [p.name for p in read.pipeline.portfolios] == ["first"]
    assert [s.uses for s in read.pipeline.portfolios[0].strategies] == ["momentum", "reversion"]
    assert set(read.pipeline.universes[0].symbols) == set(plain.simulator.symbols)


def test_the_commented_defaults_are_the_defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = loaded(file, monkeypatch)
    text, count = DEFAULT.subn("", file.read_text())
    assert count > 60
    file.write_text(text)
    after = loaded(file, monkeypatch)
    momentum, reversion = after.pipeline.portfolios[0].strategies
    assert msgspec.convert(momentum.parameters, MomentumParameters) == MomentumParameters()
    assert msgspec.convert(reversion.parameters, ReversionParameters) == ReversionParameters()
    assert set(momentum.parameters) == {f.name for f in msgspec.structs.fields(MomentumParameters)}
    assert set(reversion.parameters) == {f.name for f in msgspec.structs.fields(ReversionParameters)}
    plain = before.pipeline.portfolios[0]
    portfolio = after.pipeline.portfolios[0].model_copy(update={"strategies": plain.strategies})
    pipeline = after.pipeline.model_copy(update={"portfolios": (portfolio,)})
    assert after.model_copy(update={"pipeline": pipeline}) == before


def test_every_setting_is_told(file: Path) -> None:
    told = tomllib.loads(EXAMPLE.sub("", DEFAULT.sub("", file.read_text())))
    left_out = {
        "files.clocks.close_after_us",
        "files.clocks.open_end",
        "files.clocks.every_step",
        "files.clocks.max_ahead_us",
        "simulator.clocks",
        "simulator.correlation",
        "files.columns.exchange",
        "files.columns.conditions",
        "files.columns.suspicious",
        "files.columns.trade_id",
        "files.columns.aggressor",
    }
    assert set(untold(Settings, told, "")) == left_out


def untold(model: type[BaseModel], told: Any, path: str) -> list[str]:
    """Names of fields of ``model``, and of the models in it, that ``told`` does not hold."""
    missing = []
    for name, field in model.model_fields.items():
        full = f"{path}{name}"
        if name not in told:
            missing.append(full)
            continue
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                value = told[name]
                each = value[0] if isinstance(value, list) else value
                missing += untold(part, each, f"{full}.")
    return missing


def test_a_file_that_is_there_is_kept(file: Path) -> None:
    file.write_text("namespace = 'mine'")
    with pytest.raises(SettingsExist, match="--force"):
        init(file)
    assert file.read_text() == "namespace = 'mine'"
    init(file, force=True)
    assert "[pipeline.market]" in file.read_text()
