"""Which settings OpenTelemetry's environment variables make."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.settings.otel_environment import OtelExport, UnsupportedExport, read_otel_environment
from headrace.settings.settings import SinkConfig, load_settings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def export(**variables: str) -> OtelExport:
    found = read_otel_environment({**ENDPOINT, **variables})
    assert isinstance(found, OtelExport)
    return found


def test_without_an_endpoint_nothing_is_exported() -> None:
    assert read_otel_environment({}) is None
    assert read_otel_environment({"OTEL_SERVICE_NAME": "app", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None


def test_an_endpoint_makes_a_sink_without_content() -> None:
    assert export() == OtelExport(url="http://collector:4318")
    assert export().service_name == "headrace"


def test_a_variable_for_traces_goes_before_the_general_one() -> None:
    found = export(
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://traces/v1/traces",
        OTEL_EXPORTER_OTLP_HEADERS="a=general",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="b=own",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION="gzip",
    )

    assert found.url == "http://traces/v1/traces"
    assert found.headers == {"b": "own"}
    assert found.compression == "gzip"


def test_headers_are_percent_decoded_pairs() -> None:
    found = export(OTEL_EXPORTER_OTLP_HEADERS="Authorization=Basic%20YTpi%3D, x-project = a%2Cb ,nonsense,=v,empty=")

    assert found.headers == {"Authorization": "Basic YTpi=", "x-project": "a,b", "empty": ""}


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_text_in_the_headers_is_an_error(text: str) -> None:
    assert isinstance(export(OTEL_EXPORTER_OTLP_HEADERS=text).headers, dict)


@pytest.mark.parametrize(
    ("word", "is_captured"),
    [
        ("true", True),
        ("True", True),
        ("span_only", True),
        ("SPAN_AND_EVENT", True),
        ("event_only", False),
        ("no_content", False),
        ("false", False),
        ("", False),
    ],
)
def test_content_is_sent_if_opentelemetrys_own_variable_asks_for_it(word: str, is_captured: bool) -> None:
    assert export(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=word).content is is_captured


def test_the_service_has_its_own_name_or_that_of_the_resource() -> None:
    assert export(OTEL_RESOURCE_ATTRIBUTES="a=b,service.name=shop").service_name == "shop"
    assert export(OTEL_RESOURCE_ATTRIBUTES="service.name=shop", OTEL_SERVICE_NAME="till").service_name == "till"


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_export_can_be_switched_off(name: str, value: str) -> None:
    assert read_otel_environment({**ENDPOINT, name: value}) is None


def test_grpc_is_reported_as_not_supported(caplog: pytest.LogCaptureFixture) -> None:
    environ = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert isinstance(read_otel_environment(environ), UnsupportedExport)

    with caplog.at_level(logging.WARNING):
        assert load_settings(environ).sinks == {}
    (said,) = caplog.records
    assert "grpc" in vars(said)["reason"]


def test_the_variables_make_the_sink_otlp() -> None:
    environ = {**ENDPOINT, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret", "OTEL_SERVICE_NAME": "shop"}

    assert load_settings(environ).sinks == {
        "otlp": SinkConfig(type="otlp", url="http://collector:4318", headers={"api-key": "s3cret"}, service_name="shop")
    }


def test_the_file_counts_more_than_the_variables(tmp_path: Path) -> None:
    path = tmp_path / "headrace.toml"
    environ = {**ENDPOINT, "HEADRACE_CONFIG": str(path)}

    path.write_text('[sinks.otlp]\ntype = "otlp"\nurl = "http://mine"\n')
    assert load_settings(environ).sinks["otlp"].url == "http://mine"

    path.write_text('[sinks.file]\ntype = "jsonl"\npath = "spans.jsonl"\n')
    assert sorted(load_settings(environ).sinks) == ["file", "otlp"]


def test_no_secret_is_shown() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:s3cret@collector/otel?key=s3cret",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret",
    }

    settings = load_settings(environ)

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(read_otel_environment(environ))
    assert "https://…@collector/otel?…" in repr(settings.sinks)
    assert (
        repr(SinkConfig(type="otlp", url="http://["))
        == "SinkConfig(type='otlp', url='http://…', path='', content=False)"
    )


@pytest.mark.parametrize("url", ["collector:4318", "localhost", "http://", "http://a b", "ftp://collector"])
def test_an_endpoint_that_is_no_address_makes_no_sink_and_a_warning(url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert load_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": url}).sinks == {}
    (said,) = caplog.records
    assert "OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// or https:// address" in vars(said)["reason"]
