"""The tables of ``headrace.toml`` about limits, keys, models, spending and the shared budget. Types only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.settings.setting_types import Address, Variable
from headrace.text.shown_address import without_password

_DAY_MS = 24 * 3600 * 1000
_NAME_TAKES = "at most 100 letters, digits, _, -, . and :"

Limit = Annotated[int, Meta(ge=1, le=1_000_000_000)]
DollarsPerDay = Annotated[float, Meta(gt=0, le=1_000_000_000, extra={"unit": "dollars"})]


class LimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[limits.NAME]`` table (all models of a provider together, for each of its keys), or one ``[limits."NAME/MODEL"]`` table.

    ``MODEL`` is a model's name without its version, or a pattern such as ``gpt-4o*``: then each model that fits has these limits
    for itself. All limits of a run must have room; of several that a run has of one kind, the lowest counts.
    """

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Tokens of prompts and answers together."""
    input_tokens_per_minute: Limit | None = None
    output_tokens_per_minute: Limit | None = None
    max_concurrency: Limit | None = None
    """Runs at once."""


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[models."NAME/MODEL"]`` table: what is done for the runs of a model that ask for nothing else.

    ``MODEL`` is a model's name, or a pattern such as ``gpt-4o*``. The name goes before patterns, and a longer pattern before a shorter.
    """

    fallbacks: list[str] = []
    """Models that are tried in this order if this one fails before its first chunk."""
    max_retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    hedge: Literal["off", "p95"] = "off"
    """``p95``: a second attempt begins if no first chunk has come after the time in which 95 % of this model's first chunks come."""
    hedge_after_ms: Annotated[int, Meta(ge=1, le=_DAY_MS, extra={"unit": "milliseconds"})] | None = None


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[keys.NAME]`` table: several keys of one provider, in the place of its ``api_key_env``. Runs are spread over them."""

    env: list[Variable] = []
    """Environment variables. Each holds one key."""
    file: str = ""
    """A file with one key in each line. Empty lines and lines that begin with # are left out. It is read again at ``headrace reload``."""


class SpendingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[spending.LABEL]`` table: how much the runs that it is about may cost in a day (UTC).

    It is about the runs that fit all of ``provider``, ``model``, ``user_id`` and ``tag``; one that is left out fits all runs.
    ``model`` may be a pattern such as ``gpt-4o*``. ``user_id = "*"``: each user has the amount for himself.
    """

    max_cost: DollarsPerDay
    provider: str = ""
    model: str = ""
    user_id: str = ""
    tag: str = ""


class BudgetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[budget]`` table: one set of limits for several engines."""

    url: Address = ""
    """The store: ``redis://HOST:PORT/NUMBER``, ``rediss://…`` with TLS, or ``unix:///PATH``. Empty: the limits are this engine's own."""
    name: Annotated[str, Meta(extra={"form": r"[A-Za-z0-9_.:-]{1,100}", "takes": _NAME_TAKES})] = "headrace"
    """Engines with the same name share their limits."""
    engines: Annotated[int, Meta(ge=1, le=10_000)] = 4
    """While the store cannot be reached, each engine takes one part of this many of each limit."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"BudgetConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: the address without its password."""
        return [("url", without_password(self.url)), ("name", self.name), ("engines", self.engines)]
