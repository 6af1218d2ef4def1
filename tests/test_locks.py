"""The supply chain: every package that the scripts install has a version and hashes in locks/, and the audit can fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
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


def test_the_scripts_install_nothing_without_a_hash() -> None:
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]:
        for line in script.read_text().splitlines():
            if re.search(r"pip_install --|-m pip install", line) and '"$@"' not in line:
                assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line, f"{script.name}: {line}"


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
