from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from headrace.stack import (
    Endpoints,
    ExternalServices,
    PortTaken,
    StackSettings,
    Unreachable,
    down,
    endpoints,
    status,
    up,
    without_password,
)
from headrace.stack.processes import HOST, Child, free_port, write_atomically
from headrace.stack.settings import Ports

SOMEWHERE = Endpoints(kafka="a:1", registry="http://b:2", database="postgresql://c:3/d")


def test_folders_follow_the_desktop_conventions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    settings = StackSettings()
    assert settings.data_dir == tmp_path / ".local/share/headrace"
    assert settings.cache_dir == Path("/var/cache/me/headrace")
    assert StackSettings(data_dir=Path("~/here")).data_dir == tmp_path / "here"


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError):
        StackSettings.model_validate({"data_folder": "/tmp"})
    with pytest.raises(ValidationError):
        StackSettings.model_validate({"ports": {"kafka": 0}})


def test_a_stack_that_was_never_up_is_down(tmp_path: Path) -> None:
    settings = StackSettings(data_dir=tmp_path / "none")
    assert endpoints(settings) is None
    assert down(settings) == []
    assert [service.state for service in status(settings)] == ["stopped"] * 3
    assert not (tmp_path / "none").exists()


def test_endpoints_of_a_service_that_has_ended_are_not_handed_out(tmp_path: Path) -> None:
    settings = StackSettings(data_dir=tmp_path)
    write_atomically(tmp_path / "endpoints.json", SOMEWHERE.model_dump_json())
    assert endpoints(settings) == SOMEWHERE
    # The first process of the machine exists, but did not start at the epoch.
    ended = Child(service="kafka", pid=1, started=0.0, port=9092, stop_signal=15)
    write_atomically(tmp_path / "run" / "kafka.json", ended.model_dump_json())
    assert endpoints(settings) is None
    assert status(settings)[0].state == "ended"


def test_a_service_named_in_the_settings_must_answer(tmp_path: Path) -> None:
    port = free_port()
    external = ExternalServices(database=f"postgresql://me:secret@{HOST}:{port}/x")
    with pytest.raises(Unreachable, match=r"database\.url") as caught:
        up(StackSettings(data_dir=tmp_path, cache_dir=tmp_path), external)
    assert "secret" not in str(caught.value)
    states = {
        service.service: service.state for service in status(StackSettings(data_dir=tmp_path), external)
    }
    assert states == {"kafka": "stopped", "registry": "stopped", "postgres": "not answering"}


def test_a_fixed_port_in_use_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.stack.downloads.Downloads.fetch", lambda *_: tmp_path)
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = StackSettings(
            data_dir=tmp_path,
            cache_dir=tmp_path,
            ports=Ports(kafka=port, registry=port, postgres=port),
            fixed_ports=True,
        )
        with pytest.raises(PortTaken, match=rf"port {port}, .*in use") as caught:
            up(settings)
    assert "stack.fixed_ports = false" in str(caught.value)
    assert endpoints(settings) is None


def test_an_address_is_shown_without_its_password() -> None:
    assert without_password("postgresql://me:s3cret@h:5432/d") == "postgresql://me:***@h:5432/d"
    assert without_password("http://127.0.0.1:8081/apis") == "http://127.0.0.1:8081/apis"
