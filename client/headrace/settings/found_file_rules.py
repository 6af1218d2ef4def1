"""Says what is refused of a ``headrace.toml`` that was only found in the current directory: all but a list of harmless settings. Pure.

Whoever clones a repository gets its ``headrace.toml`` with it. Such a file may define providers of its own, with their models' prices,
and set the clocks of runs. A key goes to a provider of its own only where the user has allowed exactly that. All else is refused, and so
is each setting that is added to Headrace later, until its name is written here.
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
"""What a found file may set in ``[engine]``."""
_SHORTEST_CLOCK = 1.0
_LONGEST_CLOCK = 3600.0
"""Seconds. Outside of these a clock ends each run at once, or lets one that hangs go on for hours: those of the user's own providers too."""
_CLOCK_TAKES = "is no clock of 1 second to 1 hour, and would stop your runs, or let them hang"
_OF_PROVIDERS = frozenset(
    {"api", "base_url", "api_key_env", "requests_per_minute", "tokens_per_minute", "max_concurrency"}
)
_OF_PRICES = frozenset({"input", "output", "cached_input", "cache_write"})
_EFFECTS = {
    "sinks": "would decide where your runs are sent on to",
    "spans": "would decide what is kept of your runs, where, and for how long",
    "engine": "would decide what the engine takes of this machine",
}
_VENDORS = tuple({variable.partition("_")[0] for _, _, variables in BUILT_IN.values() for variable in variables})
"""OPENAI_ADMIN_KEY, MY_ANTHROPIC_TOKEN: a variable with a word that begins with a vendor's name is taken to hold its key."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WITHOUT_KEY = re.compile(r"[^?&;@]*(\?api-version=[A-Za-z0-9._-]+)?")
"""An address without what Headrace would take for a key, and so mask in the spans and logs of all runs: a model's name, for one."""
_LONGEST_ADDRESS = 500
_LONGEST_VARIABLE = 100
"""Characters: what a user is asked to allow fits on a screen."""
_MOST_VARIABLES = 8
_LIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "-": "", "_": "", ".": ""})


class TrustedProvider(msgspec.Struct, frozen=True):
    """A provider that exists without the found file. ``variables`` may hold its key."""

    base_url: str
    variables: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TrustedProvider(base_url={without_password(self.base_url)!r}, variables={self.variables!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no password, and no query, which may be a key."""
        return [("base_url", without_password(self.base_url)), ("variables", self.variables)]


class AllowedKey(msgspec.Struct, frozen=True, order=True):
    """What a user allows: that the value of a variable goes to the address of a provider that a directory's file defines."""

    directory: str
    provider: str
    base_url: str
    variable: str

    def __repr__(self) -> str:
        return (
            f"AllowedKey({self.directory!r}, {self.provider!r}, {without_password(self.base_url)!r}, {self.variable!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown."""
        return [
            ("directory", self.directory),
            ("base_url", without_password(self.base_url)),
            ("variable", self.variable),
        ]


class TrustedSettings(msgspec.Struct, frozen=True):
    """What there is without the found file.

    ``other_keys`` are variables that the user's own file names for others than providers. ``prices`` returns the names of all models that
    have a price; it is asked only where the found file has prices. ``is_allowed`` says whether the user has allowed something.
    """

    directory: str
    providers: Mapping[str, TrustedProvider]
    other_keys: Collection[str]
    prices: Callable[[], Collection[str]]
    is_allowed: Callable[[AllowedKey], bool]


class RefusedSetting(msgspec.Struct, frozen=True):
    """A setting, as a path of names, and why it is refused. ``grants`` are what would have to be allowed; empty where nothing can be."""

    path: tuple[str, ...]
    reason: str
    grants: tuple[AllowedKey, ...] = ()

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.reason}"


def refused_settings(found: Mapping[str, Any], known: TrustedSettings) -> Iterator[RefusedSetting]:
    """Yield what of a found file's tables is refused. The tables have passed the check of their types."""
    for name, table in found.items():
        match name:
            case "providers":
                for provider, settings in table.items():
                    yield from _of_provider(provider, settings, known)
            case "prices":
                yield from _of_prices(table, found.get("providers", {}), known)
            case "engine":
                yield from (RefusedSetting((name, key), _EFFECTS[name]) for key in table if key not in CLOCKS)
                yield from (
                    RefusedSetting((name, key), _CLOCK_TAKES) for key in table if _is_odd_clock(key, table[key])
                )
            case _:
                yield from (RefusedSetting((name, key), _EFFECTS.get(name, "is yours to set")) for key in table)


def wanted_keys(found: Mapping[str, Any], known: TrustedSettings) -> list[AllowedKey]:
    """Return what a found file needs to be allowed, whether or not it is by now."""
    nothing_is = msgspec.structs.replace(known, is_allowed=lambda _grant: False)
    return [grant for refusal in refused_settings(found, nothing_is) for grant in refusal.grants]


def without(found: Mapping[str, Any], refused: Iterable[RefusedSetting]) -> dict[str, Any]:
    """Return a found file's tables without what is refused of them; a provider or a price goes as a whole."""
    gone = {refusal.path[:2] for refusal in refused}
    return {
        name: {key: value for key, value in table.items() if (name, key) not in gone} for name, table in found.items()
    }


def key_variables(api_key_env: str | list[str] | None) -> tuple[str, ...]:
    """Return the variables that a provider's ``api_key_env`` names."""
    return (api_key_env,) if isinstance(api_key_env, str) else tuple(api_key_env or ())


def _is_odd_clock(key: str, value: object) -> bool:
    return key in CLOCKS and isinstance(value, int | float) and not _SHORTEST_CLOCK <= value <= _LONGEST_CLOCK


def _of_provider(name: str, table: Mapping[str, Any], known: TrustedSettings) -> Iterator[RefusedSetting]:
    path = ("providers", name)
    if (own := known.providers.get(name)) is not None:
        if table["base_url"].rstrip("/") != own.base_url.rstrip("/"):
            reason = f"would send what is meant for {name}, and its key, to another address"
            yield RefusedSetting((*path, "base_url"), reason)
        else:
            yield RefusedSetting(path, "would change a provider that exists without this file")
        return
    if (problem := _name_problem(name, known.providers)) is not None:
        yield RefusedSetting(path, problem)
        return
    yield from (RefusedSetting((*path, key), "is yours to set") for key in table if key not in _OF_PROVIDERS)
    base_url, variables = table["base_url"], key_variables(table.get("api_key_env"))
    if len(base_url) > _LONGEST_ADDRESS or any(len(variable) > _LONGEST_VARIABLE for variable in variables):
        yield RefusedSetting(path, "has an address or a variable of too many characters to be looked at")
        return
    if len(variables) > _MOST_VARIABLES:
        yield RefusedSetting(
            (*path, "api_key_env"), f"names more than {_MOST_VARIABLES} variables, too many to be looked at"
        )
        return
    if not _WITHOUT_KEY.fullmatch(base_url):
        reason = "has what may be a key in it; name a variable that holds the key in api_key_env"
        yield RefusedSetting((*path, "base_url"), reason)
        return
    keys = _Keys(known)
    if secret := next((one for one in variables if not keys.may_go(one, base_url.rstrip("/"))), None):
        reason = f"would send the key in {_shown(secret)} to an address of the file's own"
        yield RefusedSetting((*path, "api_key_env"), reason)
        return
    grants = tuple(AllowedKey(known.directory, name, base_url, variable) for variable in variables)
    if unknown := tuple(grant for grant in grants if not known.is_allowed(grant)):
        values = "the value of" if len(unknown) == 1 else "the values of"
        named = " and ".join(_shown(grant.variable) for grant in unknown)
        yield RefusedSetting((*path, "api_key_env"), f"would send {values} {named} to {base_url}", unknown)


def _shown(variable: str) -> str:
    """Return a variable's name for an error. One with small letters may be a key that somebody wrote in the variable's place."""
    return variable if variable.isupper() else "a name that is not in capitals (not shown: it may be a key)"


def _name_problem(name: str, providers: Collection[str]) -> str | None:
    """Return why a new provider may not be called so: a name that is read as another would be given what is meant for that one."""
    if not _NAME.fullmatch(name):
        return "is a name that may look like another; call it by at most 64 letters of ASCII, digits, - _ and ."
    for other in {*providers, *BUILT_IN_FORMATS}:
        if _likeness(name) == _likeness(other):
            return f"is a name like {other}; choose another"
    if prefix := next((prefix for prefix, _ in MODEL_PREFIXES if name.lower().startswith(prefix)), None):
        return f"is a name like a model's ({prefix}…), whose runs it would take; choose another"
    return None


def _likeness(name: str) -> str:
    """Return the same for names that a reader takes for each other: Open_AI, 0penai, opena1."""
    return name.lower().translate(_LIKE).replace("rn", "m").replace("vv", "w")


def _of_prices(prices: Mapping[str, Any], own: Collection[str], known: TrustedSettings) -> Iterator[RefusedSetting]:
    listed = known.prices() if prices else ()
    for name, table in prices.items():
        provider, slash, _ = name.partition("/")
        is_own = bool(slash) and provider in own and provider not in known.providers
        if not is_own:
            # Also of a model that has no price: any provider of the user's may have it, or have it by now.
            yield RefusedSetting(
                ("prices", name), "would change what your runs are said to cost; name it by a provider of the file"
            )
        elif _is_priced(name, listed):
            yield RefusedSetting(("prices", name), "would change a price that exists without this file")
        else:
            yield from (
                RefusedSetting(("prices", name, key), "is yours to set") for key in table if key not in _OF_PRICES
            )


def _is_priced(name: str, listed: Collection[str]) -> bool:
    """Return whether a price by this name would be taken in place of one that is listed, for any provider."""
    names = {name, undated(name)}
    return any(one == each or one.endswith(f"/{each}") for one in listed for each in names)


class _Keys:
    """The variables that hold keys of known providers, and where each may go."""

    def __init__(self, known: TrustedSettings) -> None:
        self._places: dict[str, set[str]] = {variable.upper(): set() for variable in known.other_keys}
        for provider in known.providers.values():
            for variable in provider.variables:
                self._places.setdefault(variable.upper(), set()).add(provider.base_url.rstrip("/"))

    def may_go(self, variable: str, base_url: str) -> bool:
        """Return whether a user may allow that the variable's value goes to ``base_url``."""
        places = self._places.get(variable.upper())
        if places is not None:
            return base_url in places
        return not any(word.startswith(_VENDORS) for word in variable.upper().split("_"))
