"""The supply chain: every package that the scripts install has a version and hashes in locks/, and the audit can fail."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {"plain": PROJECT["project"]["dependencies"], **PROJECT["dependency-groups"]}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, str]:
    """Return the version of each package in one of the lock files; each has a hash."""
    versions: dict[str, str] = {}
    for entry in (LOCKS / f"{name}.txt").read_text().replace("\\\n", " ").splitlines():
        requirement = entry.partition("--hash")[0].partition(";")[0].strip()
        package, separator, version = requirement.partition("==")
        assert separator, f"{name}.txt: {requirement} has no exact version"
        assert HASH.search(entry), f"{name}.txt: {requirement} has no hash"
        versions[canonicalize_name(package)] = version
    return versions


@pytest.mark.parametrize("name", sorted(WANTED))
def test_what_the_project_asks_for_is_locked(name: str) -> None:
    versions = locked(name)
    for wanted in map(Requirement, WANTED[name]):
        version = versions.get(canonicalize_name(wanted.name), "0")
        assert wanted.specifier.contains(version), f"{wanted}: {version} is locked; run scripts/lock"


def test_what_installs_and_locks_is_locked() -> None:
    assert {"pip", "hatchling", "editables"} <= set(locked("tools"))
    assert "uv" in locked("lock")
    assert "arize-phoenix" in locked("phoenix")


def test_all_sets_can_be_installed_together() -> None:
    versions: dict[str, str] = {}
    for name in [*WANTED, "tools"]:
        for package, version in locked(name).items():
            assert versions.setdefault(package, version) == version, f"{name}.txt: another version of {package}"


def test_the_scripts_install_nothing_without_a_hash_and_build_nothing_with_what_has_none() -> None:
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]:
        for line in script.read_text().splitlines():
            if not re.search(r"pip_install|-m pip install", line) or line.strip() in ("pip_install() {", PASSED_ON):
                continue
            is_locked = "--require-hashes --only-binary :all:" in line
            assert is_locked or "--no-deps --no-build-isolation" in line, f"{script.name}: {line}"


PASSED_ON = 'PYTHONSAFEPATH=1 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"'
BACKEND = """
import pathlib
pathlib.Path("{mark}").write_text("built")
"""
OWN_BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.mark.parametrize("attack", ["another wheel", "a source that builds itself"])
def test_what_is_not_what_the_lock_file_says_is_not_installed(attack: str, tmp_path: Path) -> None:
    """By the scripts' own function, from a folder in the place of an index."""
    offered, mark = tmp_path / "offered", tmp_path / "was-built"
    offered.mkdir()
    if attack == "a source that builds itself":
        package = offered / "built-1.tar.gz"
        files = {"backend.py": BACKEND.format(mark=mark), "pyproject.toml": OWN_BACKEND, "PKG-INFO": METADATA}
        with tarfile.open(package, "w:gz") as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(f"built-1/{name}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    else:
        package = offered / "built-1-py3-none-any.whl"
        with zipfile.ZipFile(package, "w") as wheel:
            wheel.writestr("built.py", "")
            wheel.writestr("built-1.dist-info/METADATA", METADATA)
            wheel.writestr("built-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr("built-1.dist-info/RECORD", "")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if attack == "another wheel":
        digest = f"{(int(digest[0], 16) + 1) % 16:x}{digest[1:]}"
    (tmp_path / "lock.txt").write_text(f"built==1 --hash=sha256:{digest}\n")
    program = f"""
        source "{ROOT}/scripts/environment"
        venv="{tmp_path}"
        locked_install --no-index --find-links "{offered}" --target "{tmp_path}/target" --requirement "{tmp_path}/lock.txt"
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    ended = subprocess.run(
        ["bash", "-c", program],
        env=environment | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode != 0
    assert ("DO NOT MATCH THE HASHES" if attack == "another wheel" else "No matching distribution") in ended.stderr
    assert not (tmp_path / "target").exists()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("step", "packages", "end"),
    [
        ("install_python", "python3 python3-venv", " …"),
        ("debian_program no-such-server", "no-such-server", " for the tests …"),
    ],
)
def test_no_script_runs_apt_without_saying_so(step: str, packages: str, end: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name, text in (("apt-get", 'echo "ran $*" >>"$LOG"'), ("id", "echo 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    with log.open("w") as said:
        subprocess.run(
            ["bash", "-c", f'source "{ROOT}/scripts/environment"; {step}'],
            env=environment,
            stderr=said,
            check=True,
        )
    told, *ran = log.read_text().splitlines()

    assert told == f"headrace: runs `apt-get update` and `apt-get install {packages}`{end}"
    assert [line.split()[1] for line in ran] == ["update", "install"]
    others = [script for script in (ROOT / "scripts").iterdir() if script.name != "environment"]
    assert not [script for script in others if "apt" in re.findall(r"\b\w+\b", script.read_text())]


METADATA = "Metadata-Version: 2.1\nName: built\nVersion: 1\n"


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 of 1 packages audited, 0 known"),
        (
            {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]},
            1,
            "a 1: CVE-1, mended in 2",
        ),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}]}, 0, "no package was audited"),
        (None, 0, "no package was audited"),
    ],
)
def test_a_known_vulnerability_fails_the_audit(tmp_path: Path, report: object, code: int, said: str) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(LOCKS, tmp_path / "locks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    auditor = f"#!/bin/sh\ncat <<'END'\n{json.dumps(report) if report else ''}\nEND\nexit 1\n"
    for name, text in (("python", python), ("pip-audit", auditor)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    # As if all were installed.
    everything = b"".join(path.read_bytes() for path in [ROOT / "pyproject.toml", *sorted(LOCKS.glob("*.txt"))])
    stamp = subprocess.run(["cksum"], input=everything, stdout=subprocess.PIPE, check=True).stdout
    (programs.parent / ".headrace-test-check").write_bytes(stamp)

    environment = {**os.environ, "LC_ALL": "C"}
    ended = subprocess.run(
        [tmp_path / "scripts" / "audit"], env=environment, capture_output=True, text=True, check=False
    )

    assert (ended.returncode, said in ended.stdout) == (code, True), ended
