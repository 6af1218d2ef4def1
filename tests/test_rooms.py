"""The table of rooms in docs/architecture.md is what the code imports, and what is wrong is found."""

from __future__ import annotations

from tests.rooms import PAGE, differences, imports, modules, other_words, reach, room_of, told


def test_the_table_of_rooms_is_what_the_code_imports() -> None:
    assert differences(imports(modules()), told(PAGE.read_text("utf-8"))) == []


def test_the_table_describes_each_room_in_the_words_of_its_docstring() -> None:
    assert other_words(PAGE.read_text("utf-8"), modules()) == []


def test_other_words_than_those_of_the_docstring_are_found() -> None:
    (found,) = other_words("| `headrace.version` | A number. | |\n", modules())

    assert found.startswith("headrace.version: the table says 'A number.', its docstring 'The version of Headrace")


def test_an_import_that_the_table_does_not_have_is_found() -> None:
    page = told("| `a` | first | |\n| `b` | second | `a` |\n")

    assert differences({"a": set(), "b": {"a"}}, page) == []
    assert differences({"a": {"c"}, "b": set(), "c": set()}, page) == [
        "a imports c: the table does not allow it",
        "b does not import a: the table says it does",
        "docs/architecture.md has no row for the room c",
    ]


def test_a_circle_of_imports_is_found() -> None:
    table = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}

    assert differences(table, table) == [f"a circle of imports goes through {room}" for room in "abc"]
    assert reach(table, "d") == {"a", "b", "c"}


def test_a_module_beside_the_folders_is_a_room_of_its_own() -> None:
    files = modules()

    assert room_of("headrace.client", files) == "headrace.client"
    assert room_of("headrace.wire.codec", files) == "headrace.wire"
    assert room_of("headrace.wire", files) == "headrace.wire"
