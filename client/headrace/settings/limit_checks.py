"""Checks the tables about limits, models, keys, spending and the shared budget: names, patterns, fallbacks, addresses. Pure.

:mod:`headrace.settings.table_check` has checked types and ranges before. An error never shows an address, which may have a password.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from headrace.pricing.prices import PriceTable
from headrace.settings.http_values import names_a_host
from headrace.settings.limit_settings import KeyConfig, LimitConfig, ModelConfig, SpendingConfig
from headrace.settings.named_models import named_model
from headrace.settings.table_check import dotted
from headrace.text.model_names import model_family
from headrace.text.similar_names import meant

if TYPE_CHECKING:
    from headrace.settings.settings import ProviderConfig, Settings

_NOT_IN_ADDRESS = re.compile(r"[\x00-\x20\x7f]")
_NUMBER = re.compile(r"/?|/[0-9]{1,4}")
_LIKE_PATTERNS = re.compile(r"[?\[\]]")
_LONGEST_NAME = 200
"""Characters. A status shows the name of a spending limit."""
_MOST_FALLBACKS = 16
_MOST_LISTED = 30
"""Providers that an error lists."""


class SettingProblem(msgspec.Struct, frozen=True):
    """A setting that cannot be used. ``path``: its table and its name. ``reason`` is the end of a sentence that begins with the path."""

    path: tuple[str, ...]
    reason: str

    @property
    def entry(self) -> tuple[str, str]:
        """The table, and the name in it that is in the file: ``("limits", "openai")``."""
        return self.path[0], self.path[1]

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.reason}"


def problems_within(settings: Settings) -> Iterator[SettingProblem]:
    """Yield what is wrong with tables that can be checked alone. ``settings`` are those of one file."""
    for name, limits in settings.limits.items():
        yield from _of_limits(name, limits)
    for name, model in settings.models.items():
        yield from _of_model(name, model)
    for name, keys in settings.keys.items():
        yield from _of_keys(name, keys)
    for label in settings.spending:
        if not label.strip() or len(label) > _LONGEST_NAME:
            yield SettingProblem(("spending", label), f"has no name, or one of more than {_LONGEST_NAME} characters")
    for label, spending in settings.spending.items():
        if (problem := _pattern_problem(spending.model)) is not None:
            yield SettingProblem(("spending", label, "model"), problem)
    if settings.budget.url and (problem := store_problem(settings.budget.url)) is not None:
        yield SettingProblem(("budget", "url"), problem)


def problems_between(
    settings: Settings, providers: Mapping[str, ProviderConfig | None], prices: PriceTable
) -> Iterator[SettingProblem]:
    """Yield what is wrong with tables that are about other tables.

    ``settings`` are those of all files. ``providers`` has the built-in ones too, with None.
    """
    for name, limits in settings.limits.items():
        provider, slash, _ = name.partition("/")
        if provider not in providers:
            yield SettingProblem(("limits", name), _unknown_provider(provider, providers, "limits", name))
        elif not slash and (config := providers[provider]) is not None:
            for kind in LimitConfig.__struct_fields__:
                if getattr(limits, kind) is not None and getattr(config, kind) is not None:
                    reason = f"is set in {dotted(('providers', name))} too; take one of the two out"
                    yield SettingProblem(("limits", name, kind), reason)
    for name in settings.keys:
        if name not in providers:
            yield SettingProblem(("keys", name), _unknown_provider(name, providers, "keys", name))
    for label, spending in settings.spending.items():
        yield from _of_spending(label, spending, providers, prices)
    yield from _of_fallbacks(settings.models, providers)


def store_problem(url: str) -> str | None:
    """Return what is wrong with the address of a store, or None. The text is the end of a sentence that begins with the setting's name."""
    takes = "must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH"
    if _NOT_IN_ADDRESS.search(url):
        return "has a blank, a line end or another character that is not allowed in an address"
    try:
        parts = urlsplit(url)
    except ValueError:
        return takes
    if parts.fragment or url.endswith("#"):
        return f"{takes}; it has a # in it (in a password write %23)"
    match parts.scheme:
        case "redis" | "rediss":
            return None if names_a_host(url) and _NUMBER.fullmatch(parts.path) and not parts.query else takes
        case "unix":
            is_path = not parts.netloc and parts.path.startswith("/") and len(parts.path) > 1
            return None if is_path and re.fullmatch(r"(db=[0-9]{1,4})?", parts.query) else takes
        case _:
            return takes


def _of_limits(name: str, limits: LimitConfig) -> Iterator[SettingProblem]:
    path = ("limits", name)
    _, slash, pattern = name.partition("/")
    if slash and not pattern:
        yield SettingProblem(path, f"names no model after the /; write {dotted((*path[:1], name[:-1]))} for all models")
    elif (problem := _pattern_problem(pattern)) is not None:
        yield SettingProblem(path, problem)
    elif (family := model_family(pattern)) != pattern:
        written = dotted(("limits", f"{name.removesuffix(pattern)}{family}"))
        yield SettingProblem(
            path, f"is about one version of a model; providers limit all versions together: write {written}"
        )
    if all(getattr(limits, kind) is None for kind in LimitConfig.__struct_fields__):
        yield SettingProblem(path, f"sets no limit; it takes {', '.join(LimitConfig.__struct_fields__)}")


def _pattern_problem(pattern: str) -> str | None:
    """Return why a pattern of a model fits no model, or None."""
    if _LIKE_PATTERNS.search(pattern):
        return "fits no model: only * stands for other characters"
    if pattern != pattern.strip():
        return "fits no model: it has a blank at its beginning or its end"
    return None


def _of_model(name: str, model: ModelConfig) -> Iterator[SettingProblem]:
    path = ("models", name)
    provider, slash, rest = name.partition("/")
    if not slash or not provider or not rest:
        yield SettingProblem(path, 'is not about a model; write PROVIDER/MODEL, as in [models."openai/gpt-4o"]')
    elif (problem := _pattern_problem(rest)) is not None:
        yield SettingProblem(path, problem)
    if model.hedge != "off" and model.hedge_after_ms is not None:
        yield SettingProblem(
            (*path, "hedge_after_ms"), f'is set, and hedge is "{model.hedge}"; take one of the two out'
        )
    if len(model.fallbacks) > _MOST_FALLBACKS:
        yield SettingProblem((*path, "fallbacks"), f"has more than {_MOST_FALLBACKS} models")


def _of_keys(name: str, keys: KeyConfig) -> Iterator[SettingProblem]:
    if not keys.env and not keys.file:
        yield SettingProblem(("keys", name), "names no key; set env, file, or both")
    for number, variable in enumerate(keys.env):
        if variable in keys.env[:number]:
            yield SettingProblem(("keys", name, f"env[{number}]"), "is in the list twice")


def _of_spending(
    label: str, spending: SpendingConfig, providers: Collection[str], prices: PriceTable
) -> Iterator[SettingProblem]:
    path = ("spending", label)
    if spending.provider and spending.provider not in providers:
        yield SettingProblem((*path, "provider"), _unknown(spending.provider, providers))
    elif spending.model and "*" not in spending.model and not _is_priced(spending, providers, prices):
        yield SettingProblem((*path, "model"), "has no price, so its cost cannot be counted; give it one in [prices]")


def _is_priced(spending: SpendingConfig, providers: Collection[str], prices: PriceTable) -> bool:
    if spending.provider:
        named = [(spending.provider, spending.model)]
    else:
        found = named_model(spending.model, providers)
        named = [(provider, spending.model) for provider in providers] + ([found] if found is not None else [])
    return any(prices.has(*each) for each in named)


def _of_fallbacks(models: Mapping[str, ModelConfig], providers: Collection[str]) -> Iterator[SettingProblem]:
    targets: dict[str, list[str]] = {}
    for name, model in models.items():
        if (provider := name.partition("/")[0]) not in providers:
            yield SettingProblem(("models", name), _unknown_provider(provider, providers, "models", name))
        found = targets.setdefault(name, [])
        for number, fallback in enumerate(model.fallbacks):
            path = ("models", name, f"fallbacks[{number}]")
            named = named_model(fallback, providers)
            if named is None:
                yield SettingProblem(path, _unknown_model(fallback, providers))
                continue
            target = "/".join(named)
            if target == name:
                yield SettingProblem(path, "is the model itself")
                continue
            if target in found:
                yield SettingProblem(path, "is in the list twice")
            found.append(target)
    if (circle := _circle(targets)) is not None:
        yield SettingProblem(("models", circle[0], "fallbacks"), f"lead in a circle: {' → '.join(circle)}")


def _circle(targets: Mapping[str, list[str]]) -> list[str] | None:
    """Return the names of a circle, with the first one again at its end; None if there is none."""
    done: set[str] = set()
    for start in targets:
        way: dict[str, Iterator[str]] = {} if start in done else {start: iter(targets[start])}
        while way:
            name, left = next(reversed(way.items()))
            target = next(left, None)
            if target is None:
                done.add(name)
                del way[name]
            elif target in way:
                names = list(way)
                return [*names[names.index(target) :], target]
            elif target in targets and target not in done:
                way[target] = iter(targets[target])
    return None


def _unknown_provider(provider: str, providers: Collection[str], table: str, name: str) -> str:
    """Return what is wrong with a table that is named after a provider. The user may have left the provider out."""
    if (named := named_model(name, providers)) is not None and table != "keys":
        return f"is not about a provider; did you mean [{dotted((table, '/'.join(named)))}]?"
    close = meant(provider, providers)
    return f"is about a provider that does not exist; {f'did you mean {close}?' if close else _listed(providers)}"


def _unknown(provider: str, providers: Collection[str]) -> str:
    close = meant(provider, providers)
    return f"is a provider that does not exist; {f'did you mean {close}?' if close else _listed(providers)}"


def _listed(providers: Collection[str]) -> str:
    names = sorted(providers)
    return f"the providers are: {', '.join(names[:_MOST_LISTED])}{', …' if len(names) > _MOST_LISTED else ''}"


def _unknown_model(name: str, providers: Collection[str]) -> str:
    provider, slash, _ = name.partition("/")
    if slash and (close := meant(provider, providers)) is not None:
        return f"does not name a provider that exists; did you mean {close}/…?"
    return f"does not tell its provider; write PROVIDER/MODEL; {_listed(providers)}"
