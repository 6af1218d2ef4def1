"""RowReader: makes rows of single lines, dicts and texts. Pure: :mod:`headrace.batch.rows.row_source` reads files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.arguments.unknown_arguments import advice_on
from headrace.batch.row import BadRow, Row, RowForm, RowKind
from headrace.batch.rows.openai_line import is_openai_line, openai_arguments
from headrace.batch.rows.prompt_template import PromptTemplate, columns_text, text_of
from headrace.batch.rows.row_hash import NOT_SHAPING, canonical, canonical_type, row_hash
from headrace.batch.rows.row_options import RowOptions
from headrace.batch.rows.row_target import RowTarget, RowTargets
from headrace.batch.rows.short_line import EMBEDDING_ARGUMENTS, RUN_ARGUMENTS, short_arguments
from headrace.errors import InvalidRequestError

TEXT_COLUMN = "text"
"""The column that a line of text has."""
MAX_ID = 1024
"""Characters of a row's id at most."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CORRECT = "correct it, or remove it"
_PLACE = re.compile(r"\(byte (\d+)\)")
"""The place in an error of msgspec. One without a place is about a text that has no end."""
_SYSTEM_ROLES = ("system", "developer")
_OF_THE_ROW = ("model", "provider", "messages", "input")
"""Arguments that RowOptions has in other places, or that only a row can have."""
_decode: Callable[[bytes | str], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode

_Arguments = dict[str, Any]


class RowReader:
    """Makes rows. Raises InvalidRequestError if the options are wrong, or do not fit together."""

    def __init__(self, options: RowOptions) -> None:
        _check(options)
        self._model = options.model
        self._provider = options.provider
        self._system = options.system
        self._template = None if options.prompt is None else PromptTemplate(options.prompt)
        self._embed = options.embed
        self._targets = RowTargets(options.providers)
        self._run_defaults = _Defaults(options.arguments, RUN_ARGUMENTS)
        self._embedding_defaults = _Defaults(options.arguments, EMBEDDING_ARGUMENTS)
        self._has_checked_columns = False
        self._form: RowForm = "table" if self.needs_records else "short"
        """The form of the last line: probably that of a line that cannot be read, too."""

    @property
    def needs_records(self) -> bool:
        """Whether lines of JSON are records for the template, and not rows themselves."""
        return self._template is not None or self._embed is not None

    def columns(self) -> tuple[str, ...]:
        """Return the columns that records must have. Text has one column, ``text``, if no template names another."""
        if self._embed is not None:
            return (self._embed,)
        return () if self._template is None else self._template.columns

    def read_line(self, number: int, line: bytes | str) -> Row | BadRow:
        """Return the row of a line of JSON: in OpenAI's form, in the short form, or a record for the prompt's template."""
        try:
            given = _decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if number == 1 and isinstance(line, bytes) and line.startswith(_BYTE_ORDER_MARK):
                return self.read_line(number, line[len(_BYTE_ORDER_MARK) :])
            return self.bad_line(number, _unreadable(line, error))
        return self.read_mapping(number, given)

    def bad_line(self, number: int, problem: str) -> BadRow:
        """Return the bad row of a line or a record in which nothing can be read."""
        return BadRow(number, line_id(number), problem, None, self._form)

    def read_mapping(self, number: int, given: Mapping[str, Any]) -> Row | BadRow:
        """Return the row of a dict: what a line of JSON would hold. Its values may be messages, tools and types too."""
        if self.needs_records:
            return self.read_record(number, given)
        if type(given) is not dict:
            given = dict(given)
        form: RowForm
        try:
            if is_openai_line(given):
                self._form = form = "openai"
                kind, target, arguments = openai_arguments(given, self._targets, self._model, self._provider)
                name = _id_of(given["custom_id"], "custom_id")
            else:
                self._form = form = "short"
                kind, target, arguments = short_arguments(given, self._targets, self._model, self._provider)
                name = _id_in(given, number)
            return self._row(number, name, kind, form, target, arguments)
        except InvalidRequestError as error:
            return BadRow(number, _bad_id(given, number), error.reason, error.argument, self._form)

    def read_record(self, number: int, record: Mapping[str, Any]) -> Row | BadRow:
        """Return the row of a record of a table: column → value.

        Raises InvalidRequestError for the first record if the template names a column that it does not have.
        """
        if not self._has_checked_columns:
            self.check_columns(record)
        try:
            kind: RowKind = "chat" if self._embed is None else "embeddings"
            target = self._targets.of(self._model, self._provider, kind)
            arguments: _Arguments = dict(target.arguments)
            if self._embed is not None:
                arguments["input"] = text_of(record, self._embed)
            elif self._template is not None:
                arguments["messages"] = self._template.fill(record)
            return self._row(number, _id_in(record, number), kind, "table", target, arguments)
        except InvalidRequestError as error:
            return BadRow(number, _bad_id(record, number), error.reason, error.argument, "table")

    def read_text(self, number: int, text: str) -> Row | BadRow:
        """Return the row of a text: the prompt itself, or the column ``text`` of the template."""
        if self.needs_records:
            return self.read_record(number, {TEXT_COLUMN: text})
        try:
            target = self._targets.of(self._model, self._provider, "chat")
            arguments = {**target.arguments, "messages": text}
            return self._row(number, row_id(number), "chat", "table", target, arguments)
        except InvalidRequestError as error:
            return BadRow(number, line_id(number), error.reason, error.argument, "table")

    def check_columns(self, columns: Mapping[str, Any]) -> None:
        """Raise InvalidRequestError if there are no options for records, or if a column is not there."""
        if not self.needs_records:
            raise InvalidRequestError(
                f"a table needs a template of its prompts, such as '{{{next(iter(columns), TEXT_COLUMN)}}}', or a column to embed",
                "prompt",
            )
        for column in self.columns():
            if column not in columns:
                argument = "prompt" if self._embed is None else "embed"
                raise InvalidRequestError(
                    f"names the column {column!r}, which is not there; {columns_text(columns)}", argument
                )
        self._has_checked_columns = True

    def _row(
        self, number: int, name: str, kind: RowKind, form: RowForm, target: RowTarget, arguments: _Arguments
    ) -> Row:
        """Complete the arguments, and return the row."""
        if self._system is not None and kind != "embeddings":
            arguments["messages"] = _with_system(arguments["messages"], self._system)
        defaults = self._embedding_defaults if kind == "embeddings" else self._run_defaults
        hashed = defaults.complete(arguments) if defaults.are_any else arguments
        if "response_type" in arguments:
            hashed = hashed | {"response_type": canonical_type(arguments["response_type"])}
        return Row(number, name, kind, form, arguments, row_hash(target.hashed, hashed))


class _Defaults:
    """Arguments of rows that do not name them. Their values are encoded for the hash once, not for each row."""

    def __init__(self, arguments: Mapping[str, Any], known: frozenset[str]) -> None:
        self._values = {name: value for name, value in arguments.items() if name in known and value is not None}
        self._encoded = {
            name: canonical(value)
            for name, value in self._values.items()
            if name not in NOT_SHAPING and name != "response_type"
        }
        self.are_any = bool(self._values)

    def complete(self, arguments: _Arguments) -> _Arguments:
        """Add to ``arguments`` what they do not name. Return them as they are hashed."""
        hashed = self._encoded | arguments
        options, own_options = self._values.get("custom_options"), arguments.get("custom_options")
        for name, value in self._values.items():
            arguments.setdefault(name, value)
        if options and own_options:
            arguments["custom_options"] = hashed["custom_options"] = options | own_options
        return hashed


def row_id(number: int) -> str:
    """Return the id of a row that has none of its own."""
    return f"row-{number}"


def line_id(number: int) -> str:
    """Return the id of a bad row in which no id can be read."""
    return f"line-{number}"


def _check(options: RowOptions) -> None:
    if options.prompt is not None and options.embed is not None:
        raise InvalidRequestError("give prompt or embed, not both", "embed")
    if options.embed is not None and options.system is not None:
        raise InvalidRequestError("texts to embed have no system message", "system")
    if options.model is not None and not options.model:
        raise InvalidRequestError("takes the name of a model, such as 'gpt-4o'", "model")
    if options.provider is not None and options.providers and options.provider not in options.providers:
        known = ", ".join(sorted(options.providers))
        raise InvalidRequestError(f"{options.provider!r} is not configured; there are: {known}", "provider")
    for name in options.arguments:
        if name in _OF_THE_ROW:
            raise InvalidRequestError("is no argument of all rows here", name)
        if name not in RUN_ARGUMENTS | EMBEDDING_ARGUMENTS:
            raise InvalidRequestError(advice_on(name, sorted(RUN_ARGUMENTS), is_run=True), name)


def _with_system(messages: Any, system: str) -> Any:
    """Return the messages after a system message, if they have none."""
    if isinstance(messages, str):
        return [{"role": "system", "content": system}, {"role": "user", "content": messages}]
    if not isinstance(messages, list):
        return messages  # the run says what is wrong
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else getattr(message, "role", None)
        if role in _SYSTEM_ROLES:
            return messages
    return [{"role": "system", "content": system}, *messages]


def _id_in(given: Mapping[str, Any], number: int) -> str:
    """Return the id that a line or a record names, else one made of its number."""
    for key in ("id", "custom_id"):
        if (value := given.get(key)) is not None and value != "":
            return _id_of(value, key)
    return row_id(number)


def _id_of(value: Any, key: str) -> str:
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError("takes a text that is not empty, or a whole number", key)
    if len(value) > MAX_ID:
        raise InvalidRequestError(f"takes at most {MAX_ID} characters, got {len(value)}", key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("is not UTF-8", key) from None
    return str.__str__(value)


def _bad_id(given: Mapping[str, Any], number: int) -> str:
    """Return the id of a bad row: its own if it can be read."""
    try:
        if is_openai_line(dict(given)):
            return _id_of(given["custom_id"], "custom_id")
        name = _id_in(given, number)
        return line_id(number) if name == row_id(number) else name
    except InvalidRequestError:
        return line_id(number)


def not_utf8(line: bytes) -> str:
    """Return what is wrong with a line that is not UTF-8, and where: at which byte, from 1."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"the line is not UTF-8 text at byte {error.start + 1}: {_CORRECT}"
    return f"the line is not UTF-8 text: {_CORRECT}"


def _unreadable(line: bytes | str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"the line is nested too deeply: {_CORRECT}"
    if isinstance(error, UnicodeError):
        return not_utf8(line if isinstance(line, bytes) else b"")
    if isinstance(error, msgspec.ValidationError):
        return f"the line is JSON, but no object: {_CORRECT}"
    if (place := _PLACE.search(str(error))) is None:
        return f"the line is not whole, its JSON has no end: {_CORRECT}"
    return f"the line is not JSON, near byte {place[1]}: {_CORRECT}"
