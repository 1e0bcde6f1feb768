"""What a backup takes, links, checks and refuses; how an installation goes on from one is tested with services."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from headrace.stack import (
    BackupFailed,
    ExternalServices,
    NotRestored,
    StackSettings,
    backup,
    check,
    restore,
)
from headrace.stack.backups import DATA, MANIFEST, Made, Manifest

FILES = {
    "kafka/data/market.ticks-0/00000000000000000000.log": b"closed" * 1000,
    "kafka/data/market.ticks-0/00000000000000006000.log": b"active",
    "kafka/data/meta.properties": b"cluster.id=1",
    "postgres/data/PG_VERSION": b"17",
    "postgres/data/base/1/2": bytes(range(256)) * 40,
    "postgres/password": b"secret",
    "ingest/topic-session.json": b"{}",
}
EMPTY = "postgres/data/pg_notify"
NOT_KEPT = ("logs/kafka.log", "kafka/server.properties", "demo/x/equity.png")


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    """A stack that is down; nothing here looks into its files."""
    data_dir = tmp_path / "stack"
    for name, content in {**FILES, **dict.fromkeys(NOT_KEPT, b"")}.items():
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_bytes(content)
    (data_dir / EMPTY).mkdir()
    (data_dir / "postgres/data").chmod(0o700)
    (data_dir / "postgres/password").chmod(0o600)
    return StackSettings(data_dir=data_dir)


def elsewhere(tmp_path: Path) -> StackSettings:
    return StackSettings(data_dir=tmp_path / "other")


def take(settings: StackSettings, into: Path) -> Made:
    made = backup(settings, ExternalServices(), into)
    time.sleep(1.1)  # their names are seconds
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_comes_back_is_what_was_there(settings: StackSettings, tmp_path: Path) -> None:
    made = take(settings, tmp_path / "backups")
    assert made.path.parent == tmp_path / "backups"
    assert made.size_bytes == made.new_bytes == sum(map(len, FILES.values()))
    assert len(check(made.path).files) == len(FILES)
    other = elsewhere(tmp_path)
    restore(other, made.path)
    found = files_of(other.data_dir)
    assert found.pop("lock") == b""
    assert found == FILES
    assert (other.data_dir / EMPTY).is_dir()
    for name in ("postgres/data", "postgres/password", EMPTY, *FILES):
        was, now = ((folder / name).stat() for folder in (settings.data_dir, other.data_dir))
        assert (was.st_mode, was.st_uid) == (now.st_mode, now.st_uid), name
        assert name not in FILES or was.st_mtime_ns == now.st_mtime_ns
    assert (made.path.stat().st_mode & 0o777) == 0o700, "the database's password is in it"


def test_what_an_earlier_one_has_is_linked_and_what_changed_is_not(
    settings: StackSettings, tmp_path: Path
) -> None:
    first = take(settings, tmp_path / "backups")
    active = "kafka/data/market.ticks-0/00000000000000006000.log"
    in_place = "postgres/data/base/1/2"  # the same size, as PostgreSQL writes its pages
    with (settings.data_dir / active).open("ab") as log:
        log.write(b", and on")
    (settings.data_dir / in_place).write_bytes(bytes(len(FILES[in_place])))
    (settings.data_dir / "ingest/topic-session.json").unlink()
    second = take(settings, tmp_path / "backups")
    assert second.new_bytes == len(FILES[active]) + len(b", and on") + len(FILES[in_place])
    for name in FILES.keys() - {"ingest/topic-session.json"}:
        a, b = ((made.path / DATA / name).stat() for made in (first, second))
        assert (a.st_ino == b.st_ino) == (name not in (active, in_place)), name
    assert files_of(first.path / DATA) == FILES
    assert files_of(second.path / DATA) == files_of_kept(settings)
    restore(elsewhere(tmp_path), second.path)
    (first.path / MANIFEST).unlink()
    assert take(settings, tmp_path / "backups").new_bytes == 0


def files_of_kept(settings: StackSettings) -> dict[str, bytes]:
    return {name: content for name, content in files_of(settings.data_dir).items() if name in FILES}


def test_one_that_is_not_whole_is_refused(settings: StackSettings, tmp_path: Path) -> None:
    made, other = take(settings, tmp_path / "backups"), elsewhere(tmp_path)
    name = "kafka/data/market.ticks-0/00000000000000000000.log"
    copy = made.path / DATA / name
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1] + b"?")
    with pytest.raises(NotRestored, match="is not what was backed up"):
        check(made.path)
    copy.unlink()
    with pytest.raises(NotRestored, match="is not whole"):
        restore(other, made.path)
    copy.write_bytes(whole)
    (made.path / MANIFEST).rename(made.path / "elsewhere")
    with pytest.raises(NotRestored, match="is no backup"):
        restore(other, made.path)
    assert not other.data_dir.exists()


def test_it_goes_nowhere_but_into_an_empty_folder(settings: StackSettings, tmp_path: Path) -> None:
    made = take(settings, tmp_path / "backups")
    before = files_of(settings.data_dir)
    with pytest.raises(NotRestored, match="holds a stack already"):
        restore(settings, made.path)
    assert files_of(settings.data_dir) == before


def test_another_version_is_refused_with_the_way_out(settings: StackSettings, tmp_path: Path) -> None:
    made = take(settings, tmp_path / "backups")
    manifest = msgspec.json.decode((made.path / MANIFEST).read_bytes(), type=Manifest)
    other = msgspec.structs.replace(manifest, services={**manifest.services, "postgres": "16"})
    (made.path / MANIFEST).write_bytes(msgspec.json.encode(other))
    with pytest.raises(NotRestored, match=r"with kafka .*postgres 16.* Restore it with that version"):
        restore(elsewhere(tmp_path), made.path)


def test_a_restore_that_fails_leaves_nothing(
    settings: StackSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = take(settings, tmp_path / "backups"), elsewhere(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "utime", full_disk)
        with pytest.raises(NotRestored, match="No space left"):
            restore(other, made.path)
    assert list(other.data_dir.iterdir()) == [other.data_dir / "lock"]
    restore(other, made.path)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_backup_that_fails_leaves_nothing(
    settings: StackSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "backups"
    with monkeypatch.context() as broken:
        broken.setattr(os, "utime", full_disk)
        with pytest.raises(BackupFailed, match="nothing of this backup is kept"):
            backup(settings, ExternalServices(), into)
    assert list(into.iterdir()) == []


def test_what_is_not_the_local_stacks_is_refused(settings: StackSettings, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="another kafka"):
        backup(settings, ExternalServices(kafka="broker:9092"), tmp_path / "backups")
    with pytest.raises(BackupFailed, match="was it ever up"):
        backup(elsewhere(tmp_path), ExternalServices(), tmp_path / "backups")
    (settings.data_dir / "postgres/data/base/linked").symlink_to(tmp_path)
    with pytest.raises(BackupFailed, match="is a link"):
        backup(settings, ExternalServices(), tmp_path / "backups")
