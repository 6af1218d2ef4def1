"""What the documentation names exists: tests, and recordings where they are at hand."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import headrace
import headrace.errors
from headrace import (
    EmbeddingArguments,
    HeadraceError,
    RunArguments,
    RunToolsResult,
    ToolCallReturned,
    ToolCallStarted,
    TurnEnded,
    TurnStarted,
)
from headrace.cli.shared.exit_codes import ExitCode
from headrace.pricing.prices import Price
from headrace.settings.limit_settings import BudgetConfig, KeyConfig, LimitConfig, ModelConfig, SpendingConfig
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN, MODEL_PREFIXES
from headrace.settings.settings import EngineConfig, ProviderConfig, SinkConfig, SpansConfig
from headrace.wire.messages import FromBroker, FromCollector, FromWorker, ToBroker, ToCollector, ToWorker
from tests.cases import each
from tests.conftest import ROOT
from tests.documentation import FILES, NOTHING, setting_cells
from tests.simulation.guards import GUARDS
from tests.workers import corpus
from tests.workers.providers import test_anthropic_corpus, test_google_corpus, test_openai_chat_corpus
from tests.workers.providers import test_openai_responses_corpus as test_responses_corpus

PROVIDERS = (ROOT / "docs" / "providers.md").read_text()
TEST = re.compile(r"`(?:(?P<file>[\w/]+\.py)::)?(?P<name>test_\w+)`")
RECORDING = re.compile(r"`((?:openai-chat|openai-responses|anthropic-messages|google-generate)--[\w-]+)`")
FOUR = ("OpenAI Chat", "OpenAI Responses", "Anthropic", "Google")


@cache
def names_in(path: Path) -> set[str]:
    """Return the tests that a file defines."""
    functions = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in functions if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def table_rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows below a heading's table head."""
    section = PROVIDERS.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


NAMED = sorted({match[0] for match in TEST.finditer(PROVIDERS)})


def test_the_documentation_names_tests() -> None:
    assert len(NAMED) > 30


@each("named", NAMED)
def test_a_test_that_the_documentation_names_exists(named: str) -> None:
    match = TEST.fullmatch(named)
    assert match is not None
    # The table of compatible servers names its file in its head only. A file without a folder is in tests/e2e.
    file = match["file"] or "tests/workers/providers/test_openai_chat.py"
    path = ROOT / file if "/" in file else ROOT / "tests" / "e2e" / file

    assert match["name"] in names_in(path)


def test_each_feature_says_something_of_each_provider_and_names_a_test() -> None:
    rows = table_rows("What each provider gives")

    assert len(rows) > 20
    for row in rows:
        assert len(row) == 1 + len(FOUR) + 1
        assert all(row), row
        assert TEST.search(row[-1]), row


def test_each_compatible_server_has_its_row() -> None:
    listed = [row[0].strip("`") for row in table_rows("Compatible servers")]

    assert listed == sorted(set(BUILT_IN) - {"openai", "openai-chat", "openai-responses", "anthropic", "google"})


@corpus.needs_recordings
def test_recordings_that_the_documentation_names_exist() -> None:
    known = set(corpus.case_names("openai.chat"))

    assert set(RECORDING.findall(PROVIDERS)) - known == set()


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_each_promise_names_tests_that_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)(?:::(test_\w+))?`", text)

    assert len(named) > 30
    for file, name in named:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not name or name in names_in(path), f"{file}::{name}"


# What pages say of the product: its messages, its settings, its errors.


def rows_of(file: str) -> list[list[str]]:
    """Return the cells of every row of every table of a page."""
    lines = (ROOT / file).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


MESSAGES: dict[str, type[msgspec.Struct]] = {
    kind.__name__: kind
    for union in (ToBroker, FromBroker, ToWorker, FromWorker, ToCollector, FromCollector)
    for kind in get_args(union)
}


def test_the_protocol_page_lists_each_message_with_its_fields_in_their_order() -> None:
    listed: dict[str, str] = {}
    for number, names, _, fields in (row for row in rows_of("docs/protocol.md") if row[0][:1].isdigit()):
        parts = fields.split("; ") if ", " in number and "; " in fields else [fields, fields]
        listed |= dict(zip(names.split(", "), parts, strict=False))

    assert listed.keys() == MESSAGES.keys()
    for name, fields in listed.items():
        if fields != "see the types":
            words = re.sub(r" \([^)]*\)", "", fields).replace(" ", "_").split(",_")
            assert [word for word in words if word] == list(MESSAGES[name].__struct_fields__), name


TABLES: dict[str, type[msgspec.Struct]] = {
    "engine": EngineConfig,
    "spans": SpansConfig,
    "sinks.NAME": SinkConfig,
    "providers.NAME": ProviderConfig,
    "limits.NAME": LimitConfig,
    "models.MODEL": ModelConfig,
    "keys.NAME": KeyConfig,
    "spending.LABEL": SpendingConfig,
    "budget": BudgetConfig,
    "prices.MODEL": Price,
}
CONFIGURATION = "docs/reference/configuration.md"


def test_each_setting_is_listed_with_its_type_unit_default_and_bound() -> None:
    listed = {row[0].strip("`"): row[1:5] for row in rows_of(CONFIGURATION) if len(row) == 7 and row[0].startswith("`")}
    declared = {
        f"{table}.{name}": cells for table, kind in TABLES.items() for name, cells in setting_cells(kind).items()
    }

    assert listed == declared


def test_each_provider_that_needs_no_settings_is_listed() -> None:
    listed = {row[0].strip("`"): row[1:] for row in rows_of(CONFIGURATION) if len(row) == 6 and row[0].startswith("`")}

    assert listed.keys() == BUILT_IN.keys()
    for name, (api, base_url, keys) in BUILT_IN.items():
        prefixes = [f"`{prefix}…`" for prefix, provider in MODEL_PREFIXES if provider == name]
        assert listed[name] == [
            f"`{api}`",
            f"`{base_url}`" if base_url else "must be set",
            f"`{BASE_URL_ENV[name]}`" if name in BASE_URL_ENV else NOTHING,
            ", ".join(f"`{key}`" for key in keys) or "no key",
            ", ".join(prefixes) or NOTHING,
        ]


# What processes of an engine tell their children. Users do not set them.
OF_ENGINES = {"HEADRACE_FOUND_IN", "HEADRACE_LOG_COPY", "HEADRACE_LOG_KEEP"}


def test_each_variable_of_headrace_is_listed() -> None:
    listed = {row[0].strip("`") for row in rows_of(CONFIGURATION) if row[0].startswith("`HEADRACE_")}
    modules = [path for package in ("client", "engine", "workers") for path in (ROOT / package).rglob("*.py")]
    read = {name for path in modules for name in re.findall(r"\"(HEADRACE_[A-Z_]+)\"", path.read_text())}

    assert listed == read - OF_ENGINES


def test_each_error_that_a_run_may_raise_has_its_row() -> None:
    named = {row[0].split("`")[1] for row in rows_of("docs/guides/errors.md") if row[0].startswith("`")}
    leaves = {
        name
        for name, error in vars(headrace.errors).items()
        if isinstance(error, type) and issubclass(error, HeadraceError) and not error.__subclasses__()
    }

    # A protocol error is a fault between processes of Headrace, or of two versions of it.
    assert leaves - named == {"LocalProtocolError", "RemoteProtocolError", "ProtocolMismatchError"}


def test_the_reference_has_each_public_name() -> None:
    pages = "".join((ROOT / "docs" / "reference" / page).read_text() for page in ("api.md", "events-and-errors.md"))
    documented = set(re.findall(r":: headrace\.(\w+)$", pages, re.MULTILINE))

    assert documented - {"errors"} == set(headrace.__all__) - {"__version__"}


RUN_TOOLS = (RunToolsResult, TurnStarted, TurnEnded, ToolCallStarted, ToolCallReturned)
TYPES_WITH_FIELDS = [
    kind
    for kind in (RunArguments, EmbeddingArguments, *RUN_TOOLS, *vars(headrace.types).values())
    if isinstance(kind, type) and kind.__module__.startswith("headrace") and getattr(kind, "__annotations__", None)
]


@pytest.mark.parametrize("kind", TYPES_WITH_FIELDS, ids=lambda kind: kind.__name__)
def test_each_field_of_a_public_type_has_its_words(kind: type) -> None:
    module = ast.parse(Path(inspect.getfile(sys.modules[kind.__module__])).read_text())
    [body] = [node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]

    for field, words in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(words, ast.Expr), ast.unparse(field)
            assert isinstance(words.value, ast.Constant), ast.unparse(field)


PATH = re.compile(r"`((?:client|engine|workers|tests|docs|scripts|bench|locks)/[\w./-]+)(?:::\w+)?`")


@each("file", FILES)
def test_each_file_that_a_page_names_exists(file: str) -> None:
    named = set(PATH.findall((ROOT / file).read_text()))

    # Tables of promises name tests by their path below tests/. NAME stands for a word of the reader's.
    missing = {path for path in named if not (ROOT / path).exists() and not (ROOT / "tests" / path).exists()}
    assert {path for path in missing if "NAME" not in path} == set()


WORDS = [
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
]


def test_figures_of_the_pages_that_can_be_counted_are_right() -> None:
    corpora = (test_anthropic_corpus, test_google_corpus, test_openai_chat_corpus, test_responses_corpus)
    wrong = sum(len(each.READING.wrong) for each in corpora)

    assert f"{WORDS[wrong].capitalize()} recordings' expectations" in PROVIDERS
    assert f"switches {len(GUARDS)} guards of the product off" in (ROOT / "docs" / "guarantees.md").read_text()


def test_the_architecture_answers_ten_changes_with_files() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("## Ten changes")[2].partition("\n## ")[0]
    answers = [line.strip("|").split(" | ")[1] for line in section.splitlines() if line.startswith("| ")][1:]

    assert len(answers) == 10
    assert all(PATH.findall(answer) for answer in answers)


def test_the_reference_has_each_exit_code() -> None:
    listed = {row[1].strip("`"): row[0] for row in rows_of("docs/reference/command-line.md") if row[0].isdigit()}

    assert listed == {code.name: str(code.value) for code in ExitCode}
