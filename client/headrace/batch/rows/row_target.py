"""RowTargets: finds the provider of each row by its model, and what of the provider belongs to the row's hash. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.arguments.checked_request import provider_and_model
from headrace.batch.row import RowKind
from headrace.batch.rows.row_options import RowProvider
from headrace.errors import InvalidRequestError
from headrace.settings.provider_table import BUILT_IN
from headrace.settings.wire_format_names import OPENAI_BY_MODEL

_RESPONSES = "openai-responses"
_NOT_OPENAIS = frozenset({"anthropic", "google"})
_MOST_KEPT = 1024


class RowTarget(msgspec.Struct, frozen=True):
    """Where a row goes.

    ``arguments``: its arguments ``model`` and, if needed, ``provider``. ``hashed``: what the row's hash begins with.
    ``is_openais``: whether the provider's request is in one of OpenAI's forms, so that it takes OpenAI's keys.
    """

    arguments: dict[str, str]
    hashed: bytes
    is_openais: bool


class RowTargets:
    """Finds targets, and keeps them: a job has few models.

    ``providers``: the configured ones. Empty: not known; then any name of a provider is taken.
    """

    def __init__(self, providers: Mapping[str, RowProvider]) -> None:
        self._takes_any = not providers
        self._providers = providers or {name: RowProvider(url, api) for name, (api, url, _) in BUILT_IN.items()}
        self._known: dict[tuple[object, object, RowKind], RowTarget | InvalidRequestError] = {}

    def of(self, model: object, provider: object, kind: RowKind) -> RowTarget:
        """Return the target of a model, which ``provider`` has if it is not None. Raises InvalidRequestError."""
        key = (model, provider, kind)
        try:
            found = self._known.get(key)
        except TypeError:  # a list or a dict: told below
            return self._found(model, provider, kind)
        if found is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            try:
                found = self._found(model, provider, kind)
            except InvalidRequestError as error:
                found = error
            self._known[key] = found
        if isinstance(found, InvalidRequestError):
            raise InvalidRequestError(found.reason, found.argument)
        return found

    def _found(self, model: object, provider: object, kind: RowKind) -> RowTarget:
        if model is None:
            raise InvalidRequestError("is missing: name it in the row, or give --model (model=) for all rows", "model")
        name, own_name = provider_and_model(model, provider, self._names, takes_any_provider=self._takes_any)
        arguments = {"model": str(model)} if provider is None else {"model": str(model), "provider": name}
        if kind == "responses" and (other := self._responses_of(name)) is not None:
            name = other
            arguments = {"model": own_name, "provider": name}
        facts = self._providers.get(name, RowProvider(""))
        hashed = f"{kind}\0{name}\0{facts.base_url}\0".encode()
        return RowTarget(arguments, hashed, facts.api not in _NOT_OPENAIS)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._providers)

    def _responses_of(self, name: str) -> str | None:
        """Return the provider that always asks OpenAI's Responses API, for one that chooses the API by the model."""
        facts, other = self._providers.get(name), self._providers.get(_RESPONSES)
        if facts is None or other is None or facts.api != OPENAI_BY_MODEL or facts.base_url != other.base_url:
            return None
        return _RESPONSES
