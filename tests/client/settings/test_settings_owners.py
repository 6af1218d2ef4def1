"""Who must own a settings file, and the directories and links that lead to it, before anything is taken from it."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.errors import ConfigurationError
from headrace.files.state_directory import expanded, state_directory
from headrace.process.import_path import child_environment
from headrace.settings.allowed_files import allowed_file, change_allowed_keys, read_allowed_keys
from headrace.settings.found_file_rules import AllowedKey
from headrace.settings.settings import SpansConfig, load_settings
from headrace.spans.data_directory import data_directory
from tests.strangers import fork

STRANGER = 54321
ALLOWED = AllowedKey("/cloned", "mine", "https://mine.example/v1", "MINE_KEY")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A user in a directory where everybody may make files, as in /tmp."""
    (tmp_path / "home" / ".config" / "headrace").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    monkeypatch.chdir(tmp_path / "shared")
    return {"HOME": str(tmp_path / "home")}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    path.write_text("[engine]\nworkers = 3\n")
    return path


def _file(path: Path) -> None:
    path.write_text("[engine]\nidle_timeout = 7\n")


def _nonsense(path: Path) -> None:
    path.write_text("no settings")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to("gone")


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _to_the_users(path: Path) -> None:
    target = path.with_name("of-the-user.toml")
    _file(target)
    path.symlink_to(target)


@needs_root
@pytest.mark.parametrize("make", [_file, _nonsense, _fifo, _directory, _dangling, _zeros, _to_the_users])
def test_another_users_file_where_a_program_runs_changes_nothing_and_stops_nothing(
    make: Callable[[Path], None], environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    make(Path("headrace.toml"))
    os.lchown("headrace.toml", STRANGER, STRANGER)

    assert load_settings(environ) == load_settings({**environ, "HEADRACE_CONFIG": "/dev/null"})
    (said,) = [vars(record) for record in caplog.records if record.getMessage() == "settings file is ignored"]
    assert said["file"].endswith("headrace.toml")
    assert said["reason"] == f"it belongs to user {STRANGER}, not to 0"


OPENED = """
import os, sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from headrace.errors import ConfigurationError
from headrace.settings.settings import load_settings
try:
    load_settings(os.environ)
except ConfigurationError as error:
    print(error)
print([name for name in opened if name.endswith("headrace.toml")])
"""


@pytest.mark.parametrize("where", ["found", "user", "named"])
def test_a_device_or_a_pipe_in_a_files_place_is_not_even_opened(
    where: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """To open a device may do something: a tape rewinds, a watchdog begins to count."""
    own = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    path = {"found": Path("headrace.toml"), "user": own, "named": tmp_path / "headrace.toml"}[where]
    if where == "named":
        environ = environ | {"HEADRACE_CONFIG": str(path)}
    for make in (_zeros, _fifo):
        make(path)
        command = [sys.executable, "-P", "-c", OPENED]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
        assert "this is not a regular file; name a file" in done.stdout
        assert done.stdout.endswith("\n[]\n"), done.stdout
        path.unlink()


def as_user(uid: int, act: Callable[[], object]) -> str:
    """Do something as another user, in a process of its own that has imported all it needs; return what it comes to."""
    read, write = os.pipe()
    child = fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = repr(act())
        except BaseException as error:  # noqa: BLE001 - the test shows it
            said = repr(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@needs_root
def test_a_user_who_plants_a_file_in_tmp_decides_nothing_for_a_user_who_works_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobodys_home = {"HOME": "/nonexistent"}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        _file(Path(folder, "own.toml"))
        load_settings({**nobodys_home, "HEADRACE_CONFIG": f"{folder}/own.toml"})  # so that all is imported
        Path(folder).chmod(0o1777)
        monkeypatch.chdir(folder)
        assert as_user(STRANGER, lambda: _nonsense(Path("headrace.toml"))) == "None"

        assert as_user(STRANGER + 1, lambda: load_settings(nobodys_home).engine.idle_timeout) == "120.0"
        assert as_user(STRANGER, lambda: load_settings(nobodys_home)).startswith("ConfigurationError(")
        monkeypatch.undo()


@needs_root
def test_a_link_of_the_users_to_another_users_file_leads_to_nothing(environ: dict[str, str]) -> None:
    _file(Path("strangers.toml"))
    os.chown("strangers.toml", STRANGER, STRANGER)
    Path("headrace.toml").symlink_to("strangers.toml")

    assert load_settings(environ).engine.idle_timeout == 120.0


def test_a_found_file_may_be_a_link_to_a_file_of_the_users(environ: dict[str, str]) -> None:
    _to_the_users(Path("headrace.toml"))

    assert load_settings(environ).engine.idle_timeout == 7.0


@needs_root
def test_a_name_that_depends_on_the_current_directory_leads_to_no_file_of_another_user(environ: dict[str, str]) -> None:
    _file(Path("headrace.toml"))
    os.chown("headrace.toml", STRANGER, STRANGER)
    with pytest.raises(ConfigurationError, match=f"belongs to user {STRANGER}.*name it by a path that begins with /"):
        load_settings({**environ, "HEADRACE_CONFIG": "headrace.toml"})

    named = {**environ, "HEADRACE_CONFIG": os.path.abspath("headrace.toml")}
    assert load_settings(named).engine.idle_timeout == 7.0


@pytest.mark.parametrize("named", ["headrace.toml", ""])
def test_an_engine_reads_the_files_of_where_its_program_made_its_client(
    named: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a program that goes to a cloned repository would have its engine read what lies there."""
    _file(Path("headrace.toml"))
    monkeypatch.setenv("HEADRACE_CONFIG", named)
    Client().close()
    (tmp_path / "cloned").mkdir()
    (tmp_path / "cloned" / "headrace.toml").write_text("[engine]\nidle_timeout = 0.001\n[spans]\nenabled = false\n")
    monkeypatch.chdir(tmp_path / "cloned")

    settings = load_settings(child_environment(os.environ))
    assert (settings.engine.idle_timeout, settings.spans.enabled) == (7.0, True)


def test_a_file_in_the_directory_of_the_client_is_still_only_found(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Client().close()
    Path("headrace.toml").write_text("[spans]\nenabled = false\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"shared/headrace\.toml: spans\.enabled .* only found in the current"):
        load_settings(child_environment({**os.environ, "HEADRACE_CONFIG": ""}))


@needs_root
@pytest.mark.parametrize("of_whom", ["headrace.toml", "", ".."])
def test_the_users_own_file_is_nobody_elses(of_whom: str, environ: dict[str, str], own: Path) -> None:
    os.chown(own.parent / of_whom, STRANGER, STRANGER)
    with pytest.raises(ConfigurationError, match=f"belongs to user {STRANGER}, not to 0"):
        load_settings(environ)


@pytest.mark.parametrize("where", ["headrace.toml", "", "..", "../.."])
def test_the_users_own_file_can_be_written_by_nobody_else(where: str, environ: dict[str, str], own: Path) -> None:
    path = own.parent / where
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    with pytest.raises(ConfigurationError, match=r"can be written by every user \(mode .*run `chmod o-w`"):
        load_settings(environ)


@needs_root
@pytest.mark.parametrize("where", ["headrace.toml", "", "..", "../.."])
def test_the_users_own_file_can_be_written_by_no_group_of_others(
    where: str, environ: dict[str, str], own: Path
) -> None:
    path = own.parent / where
    os.chown(path, -1, STRANGER)
    path.chmod(path.stat().st_mode | stat.S_IWGRP)
    with pytest.raises(ConfigurationError, match=rf"can be written by group {STRANGER} \(mode .*run `chmod g-w`"):
        load_settings(environ)


@needs_root
def test_a_home_in_a_shared_directory_has_no_settings_of_others(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "shared" / ".config" / "headrace"
    path.mkdir(parents=True)
    (path / "headrace.toml").write_text("[spans]\nretention_days = 0\n")
    for one in (path / "headrace.toml", path, path.parent):
        os.chown(one, STRANGER, STRANGER)
    with pytest.raises(ConfigurationError, match=f"belongs to user {STRANGER}"):
        load_settings({"HOME": str(tmp_path / "shared")})


def given(user: int, *paths: Path) -> None:
    for path in paths:
        os.lchown(path, user, user)


@needs_root
def test_a_container_may_run_as_any_user_in_the_home_of_one(
    environ: dict[str, str], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(STRANGER, own, own.parent, own.parent.parent, tmp_path / "home")
    monkeypatch.setattr("pwd.getpwuid", lambda _: _Account("/nonexistent"))

    assert load_settings(environ).engine.workers == 3


class _Account:
    def __init__(self, home: str) -> None:
        self.pw_dir = home


def _with_own_home(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, and as most users, who have called the victim's account with `sudo -E` or `su -m`."""


def _called_with_sudo(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _: _Account("/nonexistent"))
    environ["SUDO_UID"] = str(STRANGER)


def _with_another_real_user(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _: _Account("/nonexistent"))
    monkeypatch.setattr("os.getuid", lambda: STRANGER)


CALLED = [_with_own_home, _called_with_sudo, _with_another_real_user]


@needs_root
@pytest.mark.parametrize("called", CALLED)
@pytest.mark.parametrize("name", ["HOME", "XDG_CONFIG_HOME"])
def test_the_home_of_the_calling_user_has_no_settings_for_this_user(
    name: str,
    called: Callable[[dict[str, str], pytest.MonkeyPatch], None],
    environ: dict[str, str],
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called(environ, monkeypatch)
    environ["HOME"] = str(tmp_path / "home")
    if name == "XDG_CONFIG_HOME":
        environ[name] = str(own.parent.parent)
    base = Path(environ[name])
    folders = [own, own.parent, own.parent.parent] if name == "HOME" else [own, own.parent]
    given(STRANGER, *folders, base)
    with pytest.raises(
        ConfigurationError, match=rf"belongs to user {STRANGER}, not to 0; set HOME.*sudo -H.*HEADRACE_CO"
    ):
        load_settings(environ)
    with pytest.raises(ConfigurationError, match="is another user's home; set HOME"):
        change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))
    Path(allowed_file(environ)).write_text('{"allowed": []}')
    given(STRANGER, Path(allowed_file(environ)))
    with pytest.raises(ConfigurationError, match=f"belongs to user {STRANGER}"):
        read_allowed_keys(environ)

    # A link of the stranger's does not make a file of root's his to choose.
    own.rename(tmp_path / "roots.toml")
    given(0, tmp_path / "roots.toml", *folders[1:])
    own.symlink_to(tmp_path / "roots.toml")
    given(STRANGER, own)
    with pytest.raises(ConfigurationError, match=rf"{own} belongs to user {STRANGER}, not to 0"):
        load_settings(environ)

    # What this user has made there is its own: as root in a CI job's container, whose HOME is the runner's.
    given(0, own)
    assert load_settings(environ).engine.workers == 3


@needs_root
@pytest.mark.parametrize("called", CALLED)
def test_no_state_is_kept_in_the_home_of_the_calling_user(
    called: Callable[[dict[str, str], pytest.MonkeyPatch], None],
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called(environ, monkeypatch)
    (tmp_path / "of-the-user").mkdir()
    if called is _with_own_home:
        monkeypatch.setattr("pwd.getpwuid", lambda _: _Account(str(tmp_path / "of-the-user")))
    expected = tmp_path / "of-the-user" if called is _with_own_home else Path("/nonexistent")
    given(STRANGER, tmp_path / "home")

    assert state_directory(environ) == expected / ".local" / "state" / "headrace"
    assert data_directory(SpansConfig(), environ) == state_directory(environ)
    for name in ("HOME", "SUDO_UID"):
        monkeypatch.setenv(name, environ.get(name, ""))
    assert data_directory(SpansConfig(directory="~/spans"), environ) == expected / "spans"
    given(0, tmp_path / "home")
    assert state_directory(environ) == tmp_path / "home" / ".local" / "state" / "headrace"


@needs_root
@pytest.mark.parametrize("name", ["HOME", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("below", ["home", "his/home"])
def test_a_home_that_another_user_has_made_where_all_may_decides_nothing(name: str, below: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    path = shared / below / ("headrace" if name == "XDG_CONFIG_HOME" else ".config/headrace")
    path.mkdir(parents=True)
    (path / "headrace.toml").write_text("[spans]\nretention_days = 0\n")
    for one in (path / "headrace.toml", path, *list(path.parents)[: list(path.parents).index(shared)]):
        os.chown(one, STRANGER, STRANGER)

    with pytest.raises(ConfigurationError, match=f"belongs to user {STRANGER}, not to 0"):
        load_settings({name: str(shared / below)})


def test_the_users_own_file_may_be_a_link_to_nothing_at_all(environ: dict[str, str], own: Path) -> None:
    own.unlink()
    own.symlink_to(os.devnull)

    assert load_settings(environ).engine.workers == 0


# Paths in trusted files.


@pytest.mark.parametrize("home", [".", "home", ""])
def test_a_home_that_is_no_absolute_path_makes_no_place_in_the_current_directory(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    for directory in ("~", "~/spans", ""):
        found = data_directory(SpansConfig(directory=directory), {"HOME": home})
        assert tmp_path not in [found, *found.parents]
    assert expanded("~/spans.jsonl") == Path(pwd.getpwuid(os.geteuid()).pw_dir, "spans.jsonl")


@needs_root
def test_a_tilde_is_not_the_home_of_the_calling_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/spans") == tmp_path / "spans"
    os.chown(tmp_path, STRANGER, STRANGER)
    assert expanded("~/spans") == Path(pwd.getpwuid(0).pw_dir, "spans")


@pytest.mark.parametrize("is_named", [True, False])
def test_a_path_in_a_settings_file_is_meant_from_the_files_directory(
    is_named: bool, environ: dict[str, str], own: Path, tmp_path: Path
) -> None:
    """In the current directory `spans.jsonl` may be a link to the user's ~/.bashrc, which the clone of a repository brings."""
    own.write_text(
        '[spans]\ndirectory = "spans"\n[sinks.a]\ntype = "jsonl"\npath = "a.jsonl"\n[sinks.b]\ntype = "jsonl"\npath = "~/b.jsonl"\n'
    )
    settings = load_settings({"HEADRACE_CONFIG": str(own)} if is_named else environ)

    assert settings.spans.directory == str(own.parent / "spans")
    assert [sink.path for sink in settings.sinks.values()] == [str(own.parent / "a.jsonl"), "~/b.jsonl"]


# The file of what is allowed.


def test_permissions_are_kept_for_their_owner_only_and_never_written_through_a_link(
    environ: dict[str, str], tmp_path: Path
) -> None:
    path = Path(allowed_file(environ))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.symlink_to(precious)
    with pytest.raises(ConfigurationError, match="Too many levels of symbolic links"):
        change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))
    path.unlink()
    mask = os.umask(0)
    try:
        change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))
    finally:
        os.umask(mask)

    assert precious.read_text() == "precious"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_allowed_keys(environ) == {ALLOWED}
    assert [one.name for one in path.parent.iterdir()] == ["allowed.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"allowed": [{}]}', '{"allowed": [{"directory": 1}]}', "[" * 100_000, '{"allowed": 5}']
)
def test_a_damaged_file_of_permissions_is_an_error(text: str, environ: dict[str, str]) -> None:
    Path(allowed_file(environ)).write_text(text)
    with pytest.raises(ConfigurationError, match=r"allowed\.json: the file is damaged; remove it"):
        read_allowed_keys(environ)


def test_a_file_of_permissions_that_every_user_may_write_allows_nothing(environ: dict[str, str]) -> None:
    change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))
    Path(allowed_file(environ)).chmod(0o666)
    with pytest.raises(ConfigurationError, match="can be written by every user"):
        read_allowed_keys(environ)


@needs_root
def test_a_file_of_permissions_that_a_group_may_write_allows_nothing(environ: dict[str, str]) -> None:
    change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))
    path = Path(allowed_file(environ))
    path.chmod(0o660)
    assert read_allowed_keys(environ) == {ALLOWED}, "of root's group"
    os.chown(path, 0, STRANGER)
    with pytest.raises(ConfigurationError, match=rf"can be written by group {STRANGER} .*run `chmod g-w`"):
        read_allowed_keys(environ)


@needs_root
def test_an_error_names_the_file_of_permissions_that_cannot_be_written(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the directory is exchanged for another user's between two looks."""
    stranger = os.stat_result((stat.S_IFDIR | 0o700, 1, 1, 1, STRANGER, STRANGER, 0, 0, 0, 0))
    monkeypatch.setattr("headrace.settings.allowed_files.os.fstat", lambda _: stranger)
    with pytest.raises(ConfigurationError, match=f"allowed.json belongs to user {STRANGER}"):
        change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))


@needs_root
def test_a_file_of_permissions_of_another_user_allows_nothing(environ: dict[str, str]) -> None:
    change_allowed_keys(environ, lambda _known: frozenset({ALLOWED}))
    os.chown(allowed_file(environ), STRANGER, STRANGER)
    with pytest.raises(ConfigurationError, match=f"belongs to user {STRANGER}"):
        read_allowed_keys(environ)


def test_many_commands_may_change_permissions_at_the_same_time(environ: dict[str, str]) -> None:
    program = """
import os, sys
from headrace.settings.allowed_files import change_allowed_keys
from headrace.settings.found_file_rules import AllowedKey
from headrace.spans.data_directory import data_directory
from headrace.files.state_directory import expanded
from headrace.files.state_directory import state_directory
for number in range(5):
    change_allowed_keys(os.environ, lambda known: known | {AllowedKey("/cloned", sys.argv[1], "https://x.example", str(number))})
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program, name], env={**os.environ, **environ, "XDG_CONFIG_HOME": ""})
        for name in "abc"
    ]

    assert [one.wait(60) for one in started] == [0, 0, 0]
    assert len(read_allowed_keys(environ)) == 15


def test_a_directory_with_a_name_that_is_not_utf8_can_be_allowed(environ: dict[str, str]) -> None:
    key = AllowedKey(os.fsdecode(b"/\xff\xfe"), "mine", "https://mine.example/v1", "MINE_KEY")
    change_allowed_keys(environ, lambda _known: frozenset({key}))

    assert read_allowed_keys(environ) == {key}
