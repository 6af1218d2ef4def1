"""The errors for a sink with wrong settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.settings.settings import load_settings


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('type = "otlp"', "sinks.mine.url is missing"),
        ('type = "http"\npath = "a"', "sinks.mine.url is missing"),
        ('type = "jsonl"\nurl = "a"', "sinks.mine.path is missing"),
        (
            'type = "jsonl"\npath = "a"\nbatch_size = 0',
            "sinks.mine.batch_size is 0; it takes a whole number of spans from 1 to",
        ),
        ('type = "otlp"\nurl = "a"\ntimeout = 0', "sinks.mine.timeout is 0; it takes a number of seconds from"),
        ('type = "grpc"\nurl = "a"', "grpc"),
        ('type = "otlp"\nurl = "a"\nsemconv = "1.0"', "1.0"),
        ('type = "otlp"\nurl = "a"\nheader = { a = "b" }', "header"),
    ],
)
def test_the_error_of_a_wrong_sink_table_names_its_file(tmp_path: Path, table: str, words: str) -> None:
    path = tmp_path / "headrace.toml"
    path.write_text(f"[sinks.mine]\n{table}\n")

    with pytest.raises(ConfigurationError) as caught:
        load_settings({"HEADRACE_CONFIG": str(path)})

    assert str(path) in str(caught.value)
    assert words in str(caught.value)
