"""What a run costs."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest

from headrace.pricing.prices import _FILE, Price, PriceTable, _shipped
from headrace.settings.settings import Settings
from headrace.types import Usage, UsageSource

TABLE = PriceTable()


def usage(input_tokens: int, output_tokens: int = 0, source: UsageSource = "provider", **others: int) -> Usage:
    plain = Usage(input_tokens, output_tokens, input_tokens + output_tokens, source=source)
    return msgspec.structs.replace(plain, **others)


def test_input_and_output_have_their_prices() -> None:
    assert TABLE.cost("openai", "gpt-4o", usage(1000, 500)) == 0.0075


def test_cached_input_is_charged_at_its_own_price() -> None:
    assert TABLE.cost("openai", "gpt-4o", usage(1000, cached_input_tokens=400)) == 0.002


def test_what_is_written_to_the_cache_is_charged_at_its_own_price() -> None:
    cost = TABLE.cost("anthropic", "claude-haiku-4-5", usage(1000, cached_input_tokens=100, cache_write_tokens=500))

    assert cost == pytest.approx((400 * 1 + 100 * 0.1 + 500 * 1.25) / 1e6)


def test_reasoning_is_output_already() -> None:
    plain = TABLE.cost("openai", "o3", usage(0, 500))

    assert TABLE.cost("openai", "o3", usage(0, 500, reasoning_tokens=400)) == plain


def test_without_a_price_of_its_own_cached_input_is_input() -> None:
    table = PriceTable({"our-model": Price(input=1.0)})

    assert table.cost("ours", "our-model", usage(1000, cached_input_tokens=400, cache_write_tokens=300)) == 0.001


def test_a_single_token_of_the_cheapest_model_is_not_rounded_away() -> None:
    assert TABLE.cost("openai", "text-embedding-3-small", usage(1)) == 2e-8


def test_long_input_moves_the_whole_run_to_the_long_price() -> None:
    assert TABLE.cost("google", "gemini-2.5-pro", usage(200_000, 1000)) == pytest.approx(0.26)
    assert TABLE.cost("google", "gemini-2.5-pro", usage(200_001, 1000)) == pytest.approx(0.5150025)


@pytest.mark.parametrize(
    ("dated", "alias"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gemini-2.5-flash-001", "gemini-2.5-flash"),
    ],
)
def test_a_dated_release_costs_what_its_alias_costs(dated: str, alias: str) -> None:
    cost = TABLE.cost("any", dated, usage(1000, 1000))

    assert cost is not None
    assert cost == TABLE.cost("any", alias, usage(1000, 1000))


def test_a_dated_release_with_a_price_of_its_own_keeps_it() -> None:
    assert TABLE.cost("openai", "gpt-4o-2024-05-13", usage(1_000_000)) == 5.0


@pytest.mark.parametrize(
    "model", ["gpt-4o-2024", "gpt-4o-preview", "gpt-40", "my-gpt-4o", "ft:gpt-4o:us::x", "gpt-3.5-turbo-1106", ""]
)
def test_a_model_that_is_not_listed_has_no_cost(model: str) -> None:
    assert TABLE.cost("openai", model, usage(1000, 1000)) is None


def test_a_model_that_anyone_may_serve_is_priced_by_its_provider() -> None:
    assert TABLE.cost("groq", "openai/gpt-oss-20b", usage(1_000_000)) == 0.075
    assert TABLE.cost("ollama", "openai/gpt-oss-20b", usage(1_000_000)) is None
    assert TABLE.cost("openai", "gpt-oss-20b", usage(1_000_000)) is None


@pytest.mark.parametrize(("source", "cost"), [("estimated", 0.0025), ("partial", 0.0025), ("none", None)])
def test_usage_that_is_not_exact_costs_too_but_unknown_usage_has_no_cost(
    source: UsageSource, cost: float | None
) -> None:
    assert TABLE.cost("openai", "gpt-4o", usage(1000, source=source)) == cost


def test_overrides_come_before_what_ships_and_the_provider_s_own_first() -> None:
    table = PriceTable({"gpt-4o": Price(input=1.0), "ours/gpt-4o": Price(input=0.0)})

    assert table.cost("openai", "gpt-4o", usage(1_000_000)) == 1.0
    assert table.cost("openai", "gpt-4o-2024-08-06", usage(1_000_000)) == 1.0
    assert table.cost("ours", "gpt-4o", usage(1_000_000)) == 0.0  # free: a known price of 0
    assert table.cost("openai", "gpt-4o-mini", usage(1_000_000)) == 0.15


def test_overrides_are_the_prices_of_the_settings() -> None:
    settings = msgspec.toml.decode('[prices]\n"our/model" = { input = 3, output = 4 }', type=Settings)

    assert PriceTable(settings.prices).cost("our", "model", usage(1_000_000, 1_000_000)) == 7.0


def test_the_table_says_of_when_it_is() -> None:
    assert datetime.date.fromisoformat(TABLE.as_of) >= datetime.date(2026, 11, 1)


def test_each_price_of_the_file_is_plausible() -> None:
    models = msgspec.toml.decode(_FILE.read_bytes())["models"]

    assert len(models) > 60
    for name, price in models.items():
        assert 0 < price["input"] <= 200, name
        assert price.get("output", price["input"]) >= price["input"], name
        assert price.get("cached_input", 0) < price["input"] <= price.get("cache_write", price["input"]), name
        assert ("long_above" in price) == ("long" in price), name
        if "long" in price:
            assert {*price} - {"long_above", "long"} == {*price["long"]}, name
            assert all(price["long"][key] > price[key] for key in price["long"]), name


def test_prices_that_cannot_be_read_cost_no_run_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(24, "Too many open files")

    table = PriceTable()
    _shipped.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", fail)
        patch.setattr(Path, "read_bytes", fail)
        table.load()
        assert table.cost("openai", "gpt-4o", usage(1000)) is None

    assert table.cost("openai", "gpt-4o", usage(1000)) == 0.0025


def test_prices_are_read_while_the_program_has_replaced_the_class_of_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezegun replaces the class of dates like this."""

    class Frozen(datetime.datetime):
        pass

    _shipped.cache_clear()
    monkeypatch.setattr(datetime, "datetime", Frozen)
    TABLE.load()

    assert TABLE.cost("openai", "gpt-4o", usage(1000)) == 0.0025
