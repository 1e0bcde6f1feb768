"""PostgreSQL with TimescaleDB from Debian packages, unpacked into a folder of its own.

The packages of one Debian release are fetched with a private apt configuration from the mirror that this
machine's apt already uses, and run on their own C library: nothing is installed, nothing of the host is
loaded, and it works for an ordinary user.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
from pathlib import Path

from headrace.stack.downloads import Downloads, Recipe
from headrace.stack.errors import DownloadFailed, NotDebian
from headrace.stack.versions import DEBIAN, POSTGRES, TIMESCALEDB

_PACKAGES = (
    *(f"postgresql-{POSTGRES}", f"postgresql-client-{POSTGRES}", f"postgresql-{POSTGRES}-timescaledb"),
    *("libpq5", "libc6", "libgcc-s1", "libstdc++6", "libgssapi-krb5-2", "libkrb5-3", "libk5crypto3"),
    *("libkrb5support0", "libcom-err2", "libkeyutils1", "libldap2", "libsasl2-2", "liblz4-1", "libpam0g"),
    *("libaudit1", "libcap-ng0", "libssl3t64", "libsystemd0", "libcap2", "libxml2", "liblzma5"),
    *("libxxhash0", "libzstd1", "zlib1g", "libicu76", "libreadline8t64", "libtinfo6"),
)
_PROGRAMS = ("postgres", "initdb", "psql")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCE = "a Debian mirror"
_ADVICE = "Check the network, and that `apt-get update` works on this machine."

_APT = """\
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/none";
Dir::Etc::preferences "{folder}/none";
Dir::Etc::preferencesparts "{folder}/none";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""


def programs(prefix: Path) -> Path:
    """The folder of PostgreSQL's programs below a fetched prefix."""
    return prefix / "usr" / "lib" / "postgresql" / POSTGRES / "bin"


def _build(prefix: Path, work: Path, downloads: Downloads) -> None:
    codename = _require_debian()
    archives = work / "archives"
    for folder in ("state/lists/partial", "cache/archives/partial", "archives"):
        (work / folder).mkdir(parents=True)
    (work / "state" / "status").touch()
    configuration = work / "apt.conf"
    configuration.write_text(_APT.format(folder=work))
    signed = f"[signed-by={_KEYS}] " if _KEYS.exists() else ""
    mirror = _mirror(codename, downloads)
    (work / "sources.list").write_text(f"deb {signed}{mirror} {DEBIAN} main\n")

    for command in (["update"], ["download", *_PACKAGES]):
        downloads.run(
            ["apt-get", "-q", *command],
            what=RECIPE.title,
            source=_SOURCE,
            advice=_ADVICE,
            env={"APT_CONFIG": str(configuration)},
            cwd=archives,
        )
    for archive in sorted(archives.glob("*.deb")):
        downloads.run(["dpkg-deb", "-x", archive, prefix], what=RECIPE.title, source=_SOURCE, advice=_ADVICE)
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(prefix / folder, ignore_errors=True)
    _wrap(prefix, downloads)


def _require_debian() -> str:
    """The code name of this machine's Debian release."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        raise NotDebian(platform.system() or "an unknown system") from None
    if release.get("ID") != "debian" or not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        raise NotDebian(release.get("PRETTY_NAME", release.get("ID", "an unknown system")))
    return release.get("VERSION_CODENAME", DEBIAN)


def _mirror(codename: str, downloads: Downloads) -> str:
    """The mirror of this machine's own apt sources, whatever their format."""
    uris = downloads.run(
        ["apt-get", "update", "--print-uris"], what=RECIPE.title, source=_SOURCE, advice=_ADVICE
    )
    found = re.search(rf"^'(\S+)/dists/{re.escape(codename)}/InRelease'", uris, re.MULTILINE)
    if found is None:
        reason = f"    this machine's apt sources name no mirror of {codename}"
        raise DownloadFailed(RECIPE.title, _SOURCE, reason, "Add one under /etc/apt/sources.list.d.")
    return found[1]


def _wrap(prefix: Path, downloads: Downloads) -> None:
    """Let each program run on the prefix's own loader and libraries.

    The scripts find the prefix from where they lie, because it is renamed into its place when complete, and
    keep their own name as argument zero, because PostgreSQL's programs find each other and their data by it.
    """
    (loader,) = (prefix / "usr").glob("lib*/ld-linux-*.so.*")
    (libc,) = (prefix / "usr" / "lib").glob("*-linux-*/libc.so.6")
    libraries = libc.parent.relative_to(prefix)
    for name in _PROGRAMS:
        program = programs(prefix) / name
        real = program.rename(program.with_name(f"{name}.real"))
        loaded = downloads.run(
            [loader, "--library-path", libc.parent, "--list", real],
            what=RECIPE.title,
            source=_SOURCE,
            advice="A library is missing from the list of packages.",
        )
        strangers = [line for line in re.findall(r"=> (\S+)", loaded) if not line.startswith(str(prefix))]
        if strangers:
            raise DownloadFailed(
                RECIPE.title,
                _SOURCE,
                f"    {name} would load {', '.join(strangers)} of this machine",
                _ADVICE,
            )
        root = "$prefix"
        program.write_text(
            "#!/bin/sh\n"
            f"{root[1:]}=${{0%{shlex.quote('/' + str(program.relative_to(prefix)))}}}\n"
            f'exec "{root}/{loader.relative_to(prefix)}" --library-path "{root}/{libraries}" --argv0 "$0" '
            f'"$0.real" "$@"\n'
        )
        program.chmod(0o755)


RECIPE = Recipe(
    name=f"postgresql-{POSTGRES}-timescaledb-{TIMESCALEDB}",
    title=f"PostgreSQL {POSTGRES} with TimescaleDB {TIMESCALEDB}",
    text="\n".join((DEBIAN, *_PACKAGES, _APT)),
    fetched_mb=60,
    need_mb=500,
    build=_build,
)
