"""Decides which settings of the current directory's ``headrace.toml`` are refused: all but a list of harmless ones. Pure.

A cloned repository may bring a ``headrace.toml``. Such a *found* file may define new providers, set prices and limits of their models,
and set the timeouts of runs. For the models of its own providers it may also say what is done for failures, as long as all fallbacks
are models of its own providers: a fallback sends the user's prompts to another address, or spends with another key. It may send a key
to a new provider only if the user has allowed that key for that address. Every other setting is refused. A setting that is added to
Headrace later is refused too, until its name is written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from headrace.pricing.price_file import undated
from headrace.settings.provider_table import BUILT_IN, MODEL_PREFIXES
from headrace.settings.table_check import dotted
from headrace.settings.wire_format_names import BUILT_IN_FORMATS
from headrace.text.shown_address import without_password

CLOCKS = frozenset(
    {"connect_timeout", "first_chunk_timeout", "idle_timeout", "total_timeout", "stalled_reader_timeout"}
)
"""The settings of ``[engine]`` that a found file may have."""
_SHORTEST_CLOCK = 1.0
_LONGEST_CLOCK = 3600.0
"""Seconds. A shorter timeout would end every run at once, a longer one would let a run hang for hours. Both would affect all providers."""
_CLOCK_TAKES = "is not between 1 second and 1 hour: it would stop your runs, or let them hang"
_OF_LIMITS = frozenset(
    {
        "requests_per_minute",
        "tokens_per_minute",
        "input_tokens_per_minute",
        "output_tokens_per_minute",
        "max_concurrency",
    }
)
_OF_PROVIDERS = frozenset({"api", "base_url", "api_key_env"}) | _OF_LIMITS
_OF_MODELS = frozenset({"fallbacks", "max_retries", "hedge", "hedge_after_ms"})
_MOST_RETRIES = 5
"""A found file may ask for no more: its provider is one that the user has not chosen."""
_OF_PRICES = frozenset({"input", "output", "cached_input", "cache_write"})
_EFFECTS = {
    "sinks": "would decide where your runs are sent on to",
    "spans": "would decide what is kept of your runs, where, and for how long",
    "engine": "would decide how much of this machine the engine may use",
    "limits": "would hold up the runs of a provider that exists without this file",
    "models": "would decide what is done with the runs of a provider that exists without this file",
    "keys": "would decide which keys are sent to a provider that exists without this file",
    "spending": "would decide how much your runs may cost",
    "budget": "would decide who else counts your runs",
}
_EFFECT_OF_RETRIES = "would decide how often your runs are sent again"
_VENDORS = tuple({variable.partition("_")[0] for _, _, variables in BUILT_IN.values() for variable in variables})
"""Names of vendors. A variable is taken to hold a vendor's key if one of its words begins with such a name: OPENAI_ADMIN_KEY."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WITHOUT_KEY = re.compile(r"[^?&;@]*(\?api-version=[A-Za-z0-9._-]+)?")
"""An address without anything that could be a key. Headrace masks keys in all spans and logs: a model's name in the place of a key would
be masked everywhere."""
_LONGEST_ADDRESS = 500
_LONGEST_VARIABLE = 100
"""Characters. The user is asked to allow the address and the variable: both must fit on a screen."""
_MOST_VARIABLES = 8
_LIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "-": "", "_": "", ".": ""})


class TrustedProvider(msgspec.Struct, frozen=True):
    """A provider that exists without the found file. ``variables``: the environment variables that may hold its key."""

    base_url: str
    variables: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TrustedProvider(base_url={without_password(self.base_url)!r}, variables={self.variables!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: the address without its password and its query."""
        return [("base_url", without_password(self.base_url)), ("variables", self.variables)]


class AllowedKey(msgspec.Struct, frozen=True, order=True):
    """A user's permission: the value of ``variable`` may be sent to ``base_url``, for a ``provider`` of the file in ``directory``."""

    directory: str
    provider: str
    base_url: str
    variable: str

    def __repr__(self) -> str:
        return (
            f"AllowedKey({self.directory!r}, {self.provider!r}, {without_password(self.base_url)!r}, {self.variable!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown."""
        return [
            ("directory", self.directory),
            ("base_url", without_password(self.base_url)),
            ("variable", self.variable),
        ]


class TrustedSettings(msgspec.Struct, frozen=True):
    """The settings that exist without the found file, and what the user has allowed.

    ``directory``: where the found file is. ``other_keys``: variables that the user's own file names for sinks. ``prices`` returns the
    names of all models that have a price; it is called only if the found file has prices. ``is_allowed`` returns whether the user has
    given a permission.
    """

    directory: str
    providers: Mapping[str, TrustedProvider]
    other_keys: Collection[str]
    prices: Callable[[], Collection[str]]
    is_allowed: Callable[[AllowedKey], bool]


class RefusedSetting(msgspec.Struct, frozen=True):
    """A setting that is refused. ``path``: its table and its name. ``keys``: the permissions that would make it usable, if any could."""

    path: tuple[str, ...]
    reason: str
    keys: tuple[AllowedKey, ...] = ()

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.reason}"


def refused_settings(found: Mapping[str, Any], trusted: TrustedSettings) -> Iterator[RefusedSetting]:
    """Yield the settings of a found file that are refused. The types of the tables' values have been checked before."""
    for name, table in found.items():
        match name:
            case "providers":
                for provider, settings in table.items():
                    yield from _of_provider(provider, settings, trusted)
            case "prices":
                yield from _of_prices(table, found.get("providers", {}), trusted)
            case "engine":
                yield from (
                    RefusedSetting((name, key), _EFFECT_OF_RETRIES if key == "max_retries" else _EFFECTS[name])
                    for key in table
                    if key not in CLOCKS
                )
                yield from (
                    RefusedSetting((name, key), _CLOCK_TAKES) for key in table if _is_odd_clock(key, table[key])
                )
            case "limits" | "models" | "keys":
                own = found.get("providers", {}).keys() - trusted.providers.keys()
                for key, settings in table.items():
                    if key.partition("/")[0] not in own or not isinstance(settings, dict):
                        yield RefusedSetting((name, key), _EFFECTS[name])
                    elif name == "keys":
                        yield from _of_keys(key, settings, found["providers"][key], trusted)
                    else:
                        yield from _of_own_models((name, key), settings, own)
            case _:
                yield from (
                    RefusedSetting((name, key), _EFFECTS.get(name, "may be set only in your own settings file"))
                    for key in table
                )


def wanted_keys(found: Mapping[str, Any], trusted: TrustedSettings) -> list[AllowedKey]:
    """Return all permissions that a found file needs, whether the user has given them or not."""
    without_permissions = msgspec.structs.replace(trusted, is_allowed=lambda _key: False)
    return [key for refusal in refused_settings(found, without_permissions) for key in refusal.keys]


def without_refused(found: Mapping[str, Any], refused: Iterable[RefusedSetting]) -> dict[str, Any]:
    """Return a found file's tables without the refused settings. A provider or a price is left out as a whole."""
    gone = {refusal.path[:2] for refusal in refused}
    return {
        name: {key: value for key, value in table.items() if (name, key) not in gone} for name, table in found.items()
    }


def key_variables(api_key_env: str | list[str] | None) -> tuple[str, ...]:
    """Return the environment variables that a provider's ``api_key_env`` names."""
    return (api_key_env,) if isinstance(api_key_env, str) else tuple(api_key_env or ())


def _is_odd_clock(key: str, value: object) -> bool:
    return key in CLOCKS and isinstance(value, int | float) and not _SHORTEST_CLOCK <= value <= _LONGEST_CLOCK


def _of_provider(name: str, table: Mapping[str, Any], trusted: TrustedSettings) -> Iterator[RefusedSetting]:
    path = ("providers", name)
    if (own := trusted.providers.get(name)) is not None:
        if table["base_url"].rstrip("/") != own.base_url.rstrip("/"):
            reason = f"would send what is meant for {name}, and its key, to another address"
            yield RefusedSetting((*path, "base_url"), reason)
        else:
            yield RefusedSetting(path, "would change a provider that exists without this file")
        return
    if (problem := _name_problem(name, trusted.providers)) is not None:
        yield RefusedSetting(path, problem)
        return
    yield from (
        RefusedSetting((*path, key), "may be set only in your own settings file")
        for key in table
        if key not in _OF_PROVIDERS
    )
    base_url, variables = table["base_url"], key_variables(table.get("api_key_env"))
    if len(base_url) > _LONGEST_ADDRESS or any(len(variable) > _LONGEST_VARIABLE for variable in variables):
        yield RefusedSetting(path, "has an address or a variable that is too long to show before you allow it")
        return
    if not _WITHOUT_KEY.fullmatch(base_url):
        reason = "has what may be a key in it; name a variable that holds the key in api_key_env"
        yield RefusedSetting((*path, "base_url"), reason)
        return
    yield from _of_variables((*path, "api_key_env"), name, base_url, variables, trusted)


def _of_variables(
    path: tuple[str, ...], name: str, base_url: str, variables: tuple[str, ...], trusted: TrustedSettings
) -> Iterator[RefusedSetting]:
    """Yield why the values of variables may not be sent to the address of a provider of the file's own."""
    if len(variables) > _MOST_VARIABLES:
        yield RefusedSetting(
            path, f"names more than {_MOST_VARIABLES} variables, which are too many to show before you allow them"
        )
        return
    keys = _Keys(trusted)
    if secret := next((one for one in variables if not keys.may_go(one, base_url.rstrip("/"))), None):
        reason = f"would send the key in {_shown(secret)} to an address of the file's own"
        yield RefusedSetting(path, reason)
        return
    needed = tuple(AllowedKey(trusted.directory, name, base_url, variable) for variable in variables)
    if unknown := tuple(key for key in needed if not trusted.is_allowed(key)):
        values = "the value of" if len(unknown) == 1 else "the values of"
        named = " and ".join(_shown(key.variable) for key in unknown)
        yield RefusedSetting(path, f"would send {values} {named} to {base_url}", unknown)


def _of_keys(
    name: str, table: Mapping[str, Any], provider: Mapping[str, Any], trusted: TrustedSettings
) -> Iterator[RefusedSetting]:
    """Yield why a table of keys may not be used for a provider of the file's own."""
    path = ("keys", name)
    if table.get("file"):
        yield RefusedSetting((*path, "file"), "would send the lines of a file to an address of the file's own")
        return
    yield from (
        RefusedSetting((*path, key), "may be set only in your own settings file") for key in table if key != "env"
    )
    variables, base_url = tuple(table.get("env", ())), provider["base_url"]
    if any(len(variable) > _LONGEST_VARIABLE for variable in variables):
        yield RefusedSetting((*path, "env"), "has a variable that is too long to show before you allow it")
        return
    yield from _of_variables((*path, "env"), name, base_url, variables, trusted)


def _of_own_models(path: tuple[str, str], table: Mapping[str, Any], own: Collection[str]) -> Iterator[RefusedSetting]:
    """Yield what a table about models of the file's own providers may not have."""
    known = _OF_LIMITS if path[0] == "limits" else _OF_MODELS
    yield from (
        RefusedSetting((*path, key), "may be set only in your own settings file") for key in table if key not in known
    )
    if path[0] == "models":
        if any(name.partition("/")[0] not in own for name in table.get("fallbacks", ())):
            reason = "would send your prompts to a provider that exists without this file, and spend with your key"
            yield RefusedSetting((*path, "fallbacks"), reason)
        if table.get("max_retries", 0) > _MOST_RETRIES:
            yield RefusedSetting((*path, "max_retries"), f"is more than {_MOST_RETRIES}")


def _shown(variable: str) -> str:
    """Return a variable's name for an error. A name with small letters is not shown: it may be a key that was written by mistake."""
    return variable if variable.isupper() else "a name that is not in capitals (not shown: it may be a key)"


def _name_problem(name: str, providers: Collection[str]) -> str | None:
    """Return why a new provider may not have this name, or None. A name that looks like another provider's would get its runs."""
    if not _NAME.fullmatch(name):
        return "is a name that may look like another; use at most 64 letters of ASCII, digits, - _ and ."
    for other in {*providers, *BUILT_IN_FORMATS}:
        if _likeness(name) == _likeness(other):
            return f"is a name like {other}; choose another"
    if prefix := next((prefix for prefix, _ in MODEL_PREFIXES if name.lower().startswith(prefix)), None):
        return f"is a name like a model's ({prefix}…): it would get the runs of that model; choose another"
    return None


def _likeness(name: str) -> str:
    """Return the same text for names that look alike: Open_AI, 0penai, opena1."""
    return name.lower().translate(_LIKE).replace("rn", "m").replace("vv", "w")


def _of_prices(prices: Mapping[str, Any], own: Collection[str], trusted: TrustedSettings) -> Iterator[RefusedSetting]:
    listed = trusted.prices() if prices else ()
    for name, table in prices.items():
        provider, slash, _ = name.partition("/")
        is_own = bool(slash) and provider in own and provider not in trusted.providers
        if not is_own:
            # Refused also if the model has no price yet: one of the user's providers may offer it.
            yield RefusedSetting(
                ("prices", name),
                "would change the reported cost of your runs; write PROVIDER/MODEL with a provider of the file",
            )
        elif _is_priced(name, listed):
            yield RefusedSetting(("prices", name), "would change a price that exists without this file")
        else:
            yield from (
                RefusedSetting(("prices", name, key), "may be set only in your own settings file")
                for key in table
                if key not in _OF_PRICES
            )


def _is_priced(name: str, listed: Collection[str]) -> bool:
    """Return whether a price with this name would replace a listed price, for any provider."""
    names = {name, undated(name)}
    return any(one == each or one.endswith(f"/{each}") for one in listed for each in names)


class _Keys:
    """The variables that hold keys of trusted providers: variable → the addresses to which its value may be sent."""

    def __init__(self, trusted: TrustedSettings) -> None:
        self._places: dict[str, set[str]] = {variable.upper(): set() for variable in trusted.other_keys}
        for provider in trusted.providers.values():
            for variable in provider.variables:
                self._places.setdefault(variable.upper(), set()).add(provider.base_url.rstrip("/"))

    def may_go(self, variable: str, base_url: str) -> bool:
        """Return whether a user can allow that the variable's value is sent to ``base_url``."""
        places = self._places.get(variable.upper())
        if places is not None:
            return base_url in places
        return not any(word.startswith(_VENDORS) for word in variable.upper().split("_"))
