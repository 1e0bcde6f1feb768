from __future__ import annotations

import errno
import os
import platform
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from headrace.stack import debian, kafka
from headrace.stack.downloads import Downloads, Recipe
from headrace.stack.errors import DiskFull, DownloadFailed, MavenMissing, NotDebian, StackError


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return downloads_into(tmp_path)


def downloads_into(cache_dir: Path, cancelled: threading.Event | None = None) -> Downloads:
    return Downloads(cache_dir, Console(quiet=True), cancelled or threading.Event())


class Counted:
    """A recipe that writes one file and counts how often it is built."""

    def __init__(self, text: str = "v1", need_mb: int = 1, error: Exception | None = None) -> None:
        self.built = 0
        self.error = error
        self.recipe = Recipe("thing", "Thing", text, fetched_mb=1, need_mb=need_mb, build=self._build)

    def _build(self, content: Path, work: Path, downloads: Downloads) -> None:
        self.built += 1
        (work / "raw").write_text("x")
        (content / "file").write_text("whole")
        if self.error:
            raise self.error


def visible(cache_dir: Path) -> list[str]:
    return sorted(path.name for path in cache_dir.iterdir() if not path.name.endswith(".lock"))


def fake_tool(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_a_recipe_is_built_once_and_only_its_content_stays(tmp_path: Path, downloads: Downloads) -> None:
    counted = Counted()
    folder = downloads.fetch(counted.recipe)
    assert downloads.fetch(counted.recipe) == folder
    assert counted.built == 1
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert visible(tmp_path) == [folder.name]


def test_another_recipe_of_the_same_name_is_another_folder(downloads: Downloads) -> None:
    assert downloads.fetch(Counted("v1").recipe) != downloads.fetch(Counted("v2").recipe)


def test_two_at_once_build_once(tmp_path: Path) -> None:
    counted = Counted()
    both = [downloads_into(tmp_path), downloads_into(tmp_path)]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda downloads: downloads.fetch(counted.recipe), both))
    assert folders[0] == folders[1]
    assert counted.built == 1


def test_a_failed_build_leaves_nothing_and_is_tried_again(tmp_path: Path, downloads: Downloads) -> None:
    counted = Counted(error=RuntimeError("cut off"))
    with pytest.raises(RuntimeError, match="cut off"):
        downloads.fetch(counted.recipe)
    assert visible(tmp_path) == []
    counted.error = None
    assert (downloads.fetch(counted.recipe) / "file").read_text() == "whole"


def test_too_little_room_is_said_before_anything_is_fetched(tmp_path: Path, downloads: Downloads) -> None:
    free_mb = shutil.disk_usage(tmp_path).free >> 20
    counted = Counted(need_mb=free_mb + 10_000)
    with pytest.raises(DiskFull, match=rf"{free_mb + 10_000} MB are needed"):
        downloads.fetch(counted.recipe)
    assert counted.built == 0


def test_a_disk_that_fills_up_meanwhile_is_said(downloads: Downloads) -> None:
    with pytest.raises(DiskFull, match=r"stack\.cache_dir"):
        downloads.fetch(Counted(error=OSError(errno.ENOSPC, "No space left on device")).recipe)


def test_no_maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, downloads: Downloads) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MavenMissing, match="apt-get install maven"):
        downloads.fetch(kafka.RECIPE)
    assert visible(tmp_path) == []


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_tool(
        tmp_path,
        "mvn",
        "echo '[INFO] Scanning for projects...'\n"
        "echo '[ERROR] Could not transfer artifact kafka_2.13: Unknown host repository'\nexit 1",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    with pytest.raises(DownloadFailed) as caught:
        downloads_into(cache_dir).fetch(kafka.RECIPE)
    message = str(caught.value)
    assert "Kafka 4.1.0 could not be fetched from a Maven repository" in message
    assert "Unknown host" in message
    assert "Scanning" not in message
    assert "settings.xml" in message
    assert visible(cache_dir) == []


def test_a_full_disk_in_a_tools_words(downloads: Downloads) -> None:
    with pytest.raises(DiskFull):
        downloads.run(
            ["sh", "-c", "echo 'E: write: No space left on device'; exit 1"], what="", source="", advice=""
        )


def test_a_download_can_be_interrupted(tmp_path: Path) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    timer.start()
    with pytest.raises(StackError, match="the download of Thing was interrupted"):
        downloads_into(tmp_path, cancelled).run(["sleep", "600"], what="Thing", source="", advice="")


@pytest.mark.parametrize("release", [{"ID": "fedora", "PRETTY_NAME": "Fedora Linux 43"}, None])
def test_not_a_debian(
    monkeypatch: pytest.MonkeyPatch, downloads: Downloads, release: dict[str, str] | None
) -> None:
    def found() -> dict[str, str]:
        if release is None:
            raise OSError("no os-release")
        return release

    monkeypatch.setattr(platform, "freedesktop_os_release", found)
    with pytest.raises(NotDebian, match=r"docker-compose\.kafka\.yml") as caught:
        downloads.fetch(debian.RECIPE)
    assert ("Fedora Linux 43" in str(caught.value)) == (release is not None)
