"""Which directories are trusted: those of this user with mode 700 that only this user and root can replace."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.files import trusted_directory
from headrace.files.trusted_directory import (
    UntrustedDirectoryError,
    check_directory,
    check_place,
    check_private,
    directory_refusal,
)
from tests.strangers import STRANGER, VICTIM, StrangersChild, needs_root


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def private(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True)
    return path


def test_a_private_directory_is_trusted_below_the_temporary_directory_of_all_users(place: Path) -> None:
    assert check_directory(private(place / "engine")) is None
    assert check_place(place) is None
    assert check_place(Path("/tmp")) is None


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o704, 0o777, 0o1777])
def test_a_directory_that_is_open_to_others_is_not_trusted(place: Path, mode: int) -> None:
    directory = private(place / "engine")
    directory.chmod(mode)

    problem = check_directory(directory)

    assert problem is not None
    assert f"it must be 700 (`chmod 700 {directory}`)" in problem


def test_a_directory_that_does_not_exist_is_not_trusted(place: Path) -> None:
    refusal = directory_refusal(place / "none" / "engine")

    assert isinstance(refusal, FileNotFoundError)
    assert check_directory(place / "none" / "engine") == f"there is no directory {place / 'none' / 'engine'}"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o720, 0o702])
def test_a_directory_in_one_that_others_may_write_is_not_trusted(place: Path, mode: int) -> None:
    directory = private(place / "open" / "between" / "engine")
    (place / "open").chmod(mode)

    problem = check_directory(directory)

    assert problem is not None
    assert f"{directory} cannot be trusted: {place / 'open'} may be written by" in problem
    assert check_place(place / "open") is not None
    assert check_private(directory) is None, "which looks at nothing above it"

    (place / "open").chmod(mode | 0o1000)
    assert check_directory(directory) is None, "with the sticky bit others cannot rename what is in it"


def test_a_missing_directory_in_one_that_others_may_write_is_not_trusted(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)

    assert isinstance(directory_refusal(place / "open" / "engine"), UntrustedDirectoryError)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_directory_in_another_users_is_not_trusted(place: Path, mode: int) -> None:
    directory = private(place / "theirs" / "between" / "engine")
    (place / "theirs").chmod(mode)
    os.chown(place / "theirs", STRANGER, STRANGER)

    problem = check_directory(directory)

    assert problem is not None
    assert f"{place / 'theirs'} belongs to user {STRANGER}, who could replace what is in it" in problem


@needs_root
def test_another_users_directory_is_not_trusted(place: Path) -> None:
    directory = private(place / "engine")
    os.chown(directory, STRANGER, STRANGER)

    assert check_directory(directory) == f"{directory} belongs to user {STRANGER}, not to 0"


@needs_root
def test_roots_directories_are_trusted_on_the_way_but_are_nobody_elses_own(place: Path) -> None:
    place.chmod(0o755)
    own, roots = private(place / "own"), private(place / "roots")
    os.chown(own, VICTIM, VICTIM)
    roots.chmod(0o755)

    def look() -> list[str | None]:
        return [check_directory(own), check_directory(roots)]

    assert StrangersChild(VICTIM, look).result() == [None, f"{roots} belongs to user 0, not to {VICTIM}"]


def test_symbolic_links_are_followed_name_by_name(place: Path) -> None:
    directory = private(place / "real" / "engine")
    (place / "link").symlink_to("real")
    (place / "chain").symlink_to(place / "link")
    (place / "last").symlink_to(directory)
    (place / "up").symlink_to("real/../real/./engine")
    (place / "loop").symlink_to("loop")
    (place / "root").symlink_to("/")
    (place / "dangling").symlink_to("nowhere")

    for name in ("link/engine", "chain/engine", "last", "up"):
        assert check_directory(place / name) is None, name
    for name, reason in (
        ("loop", "symbolic links"),
        ("root", "is open to other users"),
        ("dangling", "there is no directory"),
    ):
        assert reason in (check_directory(place / name) or ""), name


def test_a_link_that_others_may_replace_is_not_followed(place: Path) -> None:
    private(place / "real" / "engine")
    (place / "open").mkdir()
    (place / "open" / "link").symlink_to(place / "real")
    (place / "first").symlink_to(place / "open" / "link")
    (place / "open").chmod(0o777)

    for name in ("open/link/engine", "first/engine", "first/../real/engine"):
        assert f"{place / 'open'} may be written" in (check_directory(place / name) or ""), name


@needs_root
def test_another_users_link_is_not_followed(place: Path) -> None:
    """In a directory with the sticky bit others cannot rename it, but they may make one first."""
    private(place / "real" / "engine")
    place.chmod(0o1777)
    (place / "link").symlink_to(place / "real")
    os.chown(place / "link", STRANGER, STRANGER, follow_symlinks=False)

    for name in ("link/engine", "real/../link/engine"):
        problem = check_directory(place / name)
        assert problem is not None
        assert f"the symbolic link {place / 'link'} belongs to user {STRANGER}" in problem


def test_a_file_on_the_way_is_an_error(place: Path) -> None:
    (place / "file").touch()

    for name in ("file", "file/engine"):
        assert "is not a directory" in (check_directory(place / name) or ""), name


@needs_root
@pytest.mark.parametrize(
    ("uid_map", "is_trusted"),
    [
        ("0 0 4294967295", False),
        ("0 100000 65536", True),
        ("1000 1000 1", True),
        ("0 1000 1", True),
        ("0 1000 1\n1 100000 65536", True),
    ],
    ids=["no user namespace", "remapped", "one user", "one user as root", "rootless container"],
)
def test_where_root_has_no_number_its_files_are_those_of_unknown_users(
    place: Path, uid_map: str, is_trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = private(place / "engine")
    os.chown(place, STRANGER, STRANGER)
    (place / "uid_map").write_text(uid_map + "\n")
    (place / "overflowuid").write_text(f"{STRANGER}\n")
    monkeypatch.setattr(trusted_directory, "_UID_MAP", place / "uid_map")
    monkeypatch.setattr(trusted_directory, "_OVERFLOW_UID", place / "overflowuid")
    monkeypatch.setattr(trusted_directory, "_unknown_roots", {})

    for _ in range(2):  # the second time by what is known
        assert (check_directory(directory) is None) == is_trusted


@needs_root
def test_the_users_of_a_namespace_are_looked_up_once_and_not_before_they_are_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = private(place / "engine")
    os.chown(place, STRANGER, STRANGER)
    users, namespace = place / "uid_map", place / "user"
    users.touch()
    namespace.symlink_to("user:[1]")
    (place / "overflowuid").write_text(f"{STRANGER}\n")
    monkeypatch.setattr(trusted_directory, "_UID_MAP", users)
    monkeypatch.setattr(trusted_directory, "_OVERFLOW_UID", place / "overflowuid")
    monkeypatch.setattr(trusted_directory, "_USER_NAMESPACE", str(namespace))
    monkeypatch.setattr(trusted_directory, "_unknown_roots", {})

    assert check_directory(directory) is None, "a namespace that was just made has no users yet"
    users.write_text("0 0 4294967295\n")
    assert check_directory(directory) is not None
    users.unlink()
    assert check_directory(directory) is not None, "it is known"

    namespace.unlink()
    namespace.symlink_to("user:[2]")  # as after unshare
    users.write_text("0 1000 1\n")
    assert check_directory(directory) is None
    os.chown(place, VICTIM, VICTIM)
    assert check_directory(directory) is not None, "the directories themselves are looked at each time"


@needs_root
def test_a_group_of_ones_own_may_write_unless_it_has_other_members(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many systems give each user such a group, and let it write what the user makes."""
    place.chmod(0o755)
    directory = private(place / "project" / "engine")
    for path in (directory, directory.parent):
        os.chown(path, VICTIM, VICTIM)
    directory.parent.chmod(0o775)
    account = struct_of("victim", VICTIM)

    def looked(name: str, members: list[str], *, has_acl: bool = False) -> bool:
        monkeypatch.setattr("pwd.getpwuid", lambda _: account)
        monkeypatch.setattr("grp.getgrgid", lambda _: struct_of(name, VICTIM, members))
        if has_acl:
            let_in(directory.parent, mask=7)
        return bool(StrangersChild(VICTIM, lambda: check_directory(directory) is None).result())

    assert looked("victim", [])
    assert looked("victim", ["victim"])
    assert not looked("victim", ["victim", "stranger"])
    assert not looked("staff", [])
    assert not looked("victim", [], has_acl=True)


def let_in(directory: Path, *, mask: int) -> None:
    """Give a directory an access control list that lets another user do all that ``mask`` leaves."""
    unset = 0xFFFFFFFF
    entries = [(1, 7, unset), (2, 7, STRANGER), (4, 5, unset), (16, mask, unset), (32, 5, unset)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(directory, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error}")


@needs_root
def test_the_mode_shows_whom_an_access_control_list_lets_in(place: Path) -> None:
    """As its group: a mode of 700 lets nobody in, whatever the list says."""
    place.chmod(0o755)
    directory = private(place / "open" / "engine")
    let_in(directory, mask=7)
    assert "is open to other users" in (check_directory(directory) or "")
    let_in(directory.parent, mask=7)
    assert f"{directory.parent} may be written by group" in (check_place(directory.parent) or "")

    def come_in() -> list[bool]:
        return [os.access(path, os.W_OK) for path in (directory.parent, directory)]

    assert StrangersChild(STRANGER, come_in).result() == [True, True]
    directory.chmod(0o700)
    directory.parent.chmod(0o755)
    assert check_directory(directory) is None
    assert StrangersChild(STRANGER, come_in).result() == [False, False]


class struct_of:  # noqa: N801 - in place of what pwd and grp return
    def __init__(self, name: str, number: int, members: list[str] | None = None) -> None:
        self.pw_name = self.gr_name = name
        self.pw_gid = number
        self.gr_mem = members or []
