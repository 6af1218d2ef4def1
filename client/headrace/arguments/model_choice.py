"""Finds what is done for a run of a model that fails: its retries, its fallbacks, and its hedge. Pure.

The arguments of a call go before the tables ``[models]`` of ``headrace.toml``, and these before ``[engine]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.arguments.checked_request import provider_and_model
from headrace.errors import InvalidRequestError
from headrace.settings.limit_settings import ModelConfig
from headrace.text.model_names import fits, model_family

ProviderModel = tuple[str, str]
"""A provider's name, and a model's name there."""

MOST_FALLBACKS = 16
_NOTHING = ModelConfig()
_MAX_KNOWN = 1024


class ModelDefaults:
    """The tables ``[models]`` of one client."""

    def __init__(self, tables: Mapping[str, ModelConfig]) -> None:
        self._tables = tables
        self._known: dict[ProviderModel, ModelConfig] = {}
        self.are_any = bool(tables)
        """Whether there is any table."""

    def of(self, provider: str, model: str) -> ModelConfig:
        """Return the table of a model: that with its name, else that with the longest pattern that fits its name."""
        if not self._tables:
            return _NOTHING
        found = self._known.get((provider, model))
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            name = _table_of((provider, model), self._tables)
            found = self._known[provider, model] = _NOTHING if name is None else self._tables[name]
        return found


def default_fallbacks(first: ProviderModel, table: ModelConfig, providers: Sequence[str]) -> list[ProviderModel]:
    """Return the fallbacks of the settings for a run of the model ``first``. They were checked at the start."""
    targets = [provider_and_model(name, None, providers) for name in table.fallbacks]
    return [target for target in targets if target != first]


def fallback_models(first: ProviderModel, named: Sequence[str], providers: Sequence[str]) -> list[ProviderModel]:
    """Return the fallbacks of a call for a run of the model ``first``. Raises InvalidRequestError, which names the wrong one."""
    if len(named) > MOST_FALLBACKS:
        raise InvalidRequestError(f"takes at most {MOST_FALLBACKS} models, not {len(named)}", "fallbacks")
    found = [first]
    for index, name in enumerate(named):
        argument = f"fallbacks[{index}]"
        target = provider_and_model(name, None, providers, argument=argument)
        if target in found:
            what = "the model itself" if target == first else "named twice"
            raise InvalidRequestError(f"{name!r} is {what}; name another model", argument)
        found.append(target)
    return found[1:]


def _table_of(target: ProviderModel, tables: Mapping[str, ModelConfig]) -> str | None:
    provider, model = target
    names = (f"{provider}/{model}", f"{provider}/{model_family(model)}")
    for name in names:
        if name in tables:
            return name
    fitting = [pattern for pattern in tables if any(fits(pattern, name) for name in names)]
    return max(fitting, key=len, default=None)
