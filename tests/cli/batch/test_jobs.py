"""``headrace batch`` as a user runs it: real processes, a real engine, the simulated provider."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from headrace.cli.shared.exit_codes import ExitCode
from tests.cli.batch.conftest import Batch, Row, openai_row

pytestmark = pytest.mark.slow  # every test starts processes of its own

MODEL = ("--model", "gpt-4o-mini")


def test_a_file_for_openais_batch_api_is_used_unchanged_and_its_output_is_read_as_that_of_the_api(batch: Batch) -> None:
    batch.write(
        "in.jsonl",
        [
            openai_row(1),
            {
                "custom_id": "response",
                "method": "POST",
                "url": "/v1/responses",
                "body": {"model": "gpt-4o-mini", "input": "Hello"},
            },
            {
                "custom_id": "vectors",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": "text-embedding-3-small", "input": ["one", "two"]},
            },
            openai_row(4, status=400, error_message="not this one"),
        ],
    )

    done = batch.run("in.jsonl", "-o", "out.jsonl")

    assert (done.returncode, done.stdout) == (ExitCode.ROWS_FAILED, ""), done.stderr
    # Below is a program written for the output of that API.
    found: dict[str, Row] = {}
    for line in (batch.directory / "out.jsonl").read_text().splitlines():
        result = json.loads(line)
        assert result["error"] is None
        assert result["response"]["status_code"] == 200
        found[result["custom_id"]] = result["response"]["body"]
    assert ChatCompletion.model_validate(found["row 1"]).choices[0].message.content == "An answer"
    assert Response.model_validate(found["response"]).output_text == "An answer"
    assert len(CreateEmbeddingResponse.model_validate(found["vectors"]).data) == 2
    (error,) = batch.lines("out.errors.jsonl")
    assert error["custom_id"] == "row 4"
    assert error["response"]["status_code"] == 400


def test_rows_that_cannot_run_are_named_with_their_lines_and_the_others_are_done(batch: Batch) -> None:
    batch.write(
        "in.jsonl",
        [
            openai_row(1),
            '{"custom_id": "torn", ',
            {"custom_id": "no model", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}},
            "",
            openai_row(5, status=404, error_message="The model does not exist"),
            openai_row(6),
        ],
    )

    done = batch.run("in.jsonl", "-o", "out.jsonl")

    assert done.returncode == ExitCode.ROWS_FAILED
    assert sorted(batch.ids()) == ["row 1", "row 6"]
    assert "2 of 5 rows done, 3 failed" in done.stderr
    assert "2 rows failed: bad_row, such as line 2 (line-2): " in done.stderr
    assert "1 row failed: invalid_request, such as line 5 (row 5): openai: The model does not exist" in done.stderr
    assert "Errors: out.errors.jsonl; --retry-failed runs these rows again" in done.stderr
    errors = batch.lines("out.errors.jsonl")
    assert [error["line"] if "line" in error else error["headrace"]["line"] for error in errors] == [2, 3, 5]


@pytest.mark.parametrize(("name", "output"), [("in.jsonl.gz", "out.jsonl.zst"), ("in.jsonl.zst", "out.jsonl.gz")])
def test_input_and_output_may_be_compressed(batch: Batch, name: str, output: str) -> None:
    plain = batch.write("plain.jsonl", [openai_row(1), openai_row(2)]).read_bytes()
    compress: dict[str, Callable[[bytes], bytes]] = {".jsonl": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
    (batch.directory / name).write_bytes(compress[Path(name).suffix](plain))

    done = batch.run(name, "-o", output, "--ordered")

    assert done.returncode == ExitCode.OK, done.stderr
    data = (batch.directory / output).read_bytes()
    text = gzip.decompress(data) if output.endswith(".gz") else zstandard.ZstdDecompressor().stream_reader(data).read()
    assert [json.loads(line)["custom_id"] for line in text.splitlines()] == ["row 1", "row 2"]


def test_rows_come_from_standard_input_and_results_go_to_standard_output(batch: Batch) -> None:
    arguments = ("-", "-o", "-", "--job", "job", "--input-format", "txt", *MODEL, "--prompt", "Spell {text}")
    process = batch.start(*arguments, stdin=subprocess.PIPE)
    out, err = process.communicate("one\ntwo\n")

    assert process.returncode == ExitCode.OK, err
    assert {line["id"]: line["text"] for line in map(json.loads, out.splitlines())} == {
        "row-1": "An answer",
        "row-2": "An answer",
    }
    assert sorted(batch.asked()) == ["Spell one", "Spell two"]
    assert "2 rows done" in err

    again = batch.start(*arguments, stdin=subprocess.PIPE)
    repeated, _ = again.communicate("one\ntwo\n")
    assert repeated == out
    assert len(batch.asked()) == 2


def test_a_table_needs_a_template(batch: Batch) -> None:
    (batch.directory / "in.csv").write_text('review,stars\n"Good, really",5\nBad,1\n')
    table = pa.table({"review": ["Good, really", "Bad"], "stars": [5, 1]})
    pq.write_table(table, batch.directory / "in.parquet")
    template = ("--prompt", "{stars} stars: {review}", "--system", "Be brief.", "--ordered")

    for name in ("in.csv", "in.parquet"):
        batch.provider.clear()
        done = batch.run(name, "-o", f"{name}.jsonl", *MODEL, *template)
        assert done.returncode == ExitCode.OK, done.stderr
        assert sorted(batch.asked()) == ["1 stars: Bad", "5 stars: Good, really"]
        assert [line["id"] for line in batch.lines(f"{name}.jsonl")] == ["row-1", "row-2"]

    for arguments, words in [
        ((), "--prompt: a table needs a template of its prompts"),
        (("--prompt", "{text}"), "--prompt: names the column 'text', which is not there; there are: 'review', 'stars'"),
    ]:
        refused = batch.run("in.csv", "-o", "none.jsonl", *MODEL, *arguments)
        assert refused.returncode == ExitCode.USAGE
        assert words in refused.stderr
    without_model = batch.run("in.csv", "-o", "none.jsonl", *template)
    assert without_model.returncode == ExitCode.USAGE
    assert "--model is missing" in without_model.stderr
    wrong_model = batch.run("in.csv", "-o", "none.jsonl", *template, "--model", "nope")
    assert wrong_model.returncode == ExitCode.USAGE
    assert "--model: cannot tell the provider of 'nope'" in wrong_model.stderr
    assert list(batch.directory.glob("none*")) == []


def test_ids_that_are_used_twice_are_refused_with_their_lines_before_anything_is_sent(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2), openai_row(1)])

    for arguments in (("-o", "out.jsonl"), ("--dry-run",)):
        refused = batch.run("in.jsonl", *arguments)
        assert refused.returncode == ExitCode.USAGE
        assert "'row 1' in lines 1, 3" in refused.stderr
    assert batch.provider.requests() == []


def test_a_changed_input_is_refused_and_only_its_changed_rows_are_run_if_asked_for(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2)])
    assert batch.run("in.jsonl", "-o", "out.jsonl").returncode == ExitCode.OK
    batch.provider.clear()
    other = openai_row(2)
    other["body"]["messages"][0]["content"] = "Another question"
    batch.write("in.jsonl", [openai_row(1), other])

    refused = batch.run("in.jsonl", "-o", "out.jsonl")
    assert refused.returncode == ExitCode.USAGE
    assert "1 changed, such as 'row 2' (line 2, changed)" in refused.stderr
    assert batch.provider.requests() == []

    changed = batch.run("in.jsonl", "-o", "out.jsonl", "--changed")
    assert changed.returncode == ExitCode.OK, changed.stderr
    assert batch.asked() == ["Another question"]
    assert sorted(batch.ids()) == ["row 1", "row 2"]

    anew = batch.run("in.jsonl", "-o", "out.jsonl", "--force")
    assert anew.returncode == ExitCode.OK
    assert len(batch.asked()) == 3
    assert sorted(batch.ids()) == ["row 1", "row 2"]


def test_only_failures_of_the_chosen_rows_count(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2, status=400)])
    assert batch.run("in.jsonl", "-o", "out.jsonl").returncode == ExitCode.ROWS_FAILED

    first = batch.run("in.jsonl", "-o", "out.jsonl", "--limit", "1")
    assert first.returncode == ExitCode.OK, first.stderr
    assert "failed" not in first.stderr


def test_failed_rows_run_again_if_asked_for(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2, failures=[{"status": 400}])])
    assert batch.run("in.jsonl", "-o", "out.jsonl").returncode == ExitCode.ROWS_FAILED

    still = batch.run("in.jsonl", "-o", "out.jsonl")
    assert still.returncode == ExitCode.ROWS_FAILED
    assert "Nothing to run: 1 row was done before; 1 had failed" in still.stderr

    again = batch.run("in.jsonl", "-o", "out.jsonl", "--retry-failed")
    assert again.returncode == ExitCode.OK, again.stderr
    assert "2 rows done" in again.stderr
    assert sorted(batch.ids()) == ["row 1", "row 2"]
    assert not (batch.directory / "out.errors.jsonl").exists()


def test_a_part_of_the_rows_is_run_and_then_the_rest(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(number) for number in range(1, 7)])

    first = batch.run("in.jsonl", "-o", "out.jsonl", "--limit", "2")
    assert (first.returncode, sorted(batch.ids())) == (ExitCode.OK, ["row 1", "row 2"])
    assert "2 rows done" in first.stderr
    some = batch.run("in.jsonl", "-o", "out.jsonl", "--sample", "3", "--json")
    assert some.returncode == ExitCode.OK
    assert json.loads(some.stdout)["rows"] == 3
    whole = batch.run("in.jsonl", "-o", "out.jsonl", "--quiet")

    assert (whole.returncode, whole.stdout, whole.stderr) == (ExitCode.OK, "", "")
    assert sorted(batch.ids()) == [f"row {number}" for number in range(1, 7)]
    assert len(batch.provider.requests()) == 6


def test_a_job_stops_before_it_costs_more_than_allowed(batch: Batch) -> None:
    rows = [openai_row(number) for number in range(1, 101)]
    for row in rows:
        row["body"]["max_tokens"] = 10  # so that even the estimate of a row is below the bound
    batch.write("in.jsonl", rows)

    stopped = batch.run("in.jsonl", "-o", "out.jsonl", "--max-cost", "0.00003", "--concurrency", "2", "--json")

    assert stopped.returncode == ExitCode.UNFINISHED, stopped.stderr
    summary = json.loads(stopped.stdout)
    assert 0 < summary["cost"] <= 0.00003
    assert (summary["rows"], summary["complete"], summary["stop_reason"]) == (100, False, "max_cost")
    assert summary["done"] == len(batch.ids()) < 100
    assert "Stopped at --max-cost: " in stopped.stderr
    assert "The same command with a higher --max-cost goes on from here." in stopped.stderr


def test_equal_rows_share_one_answer_and_a_cache_outlives_the_job(batch: Batch) -> None:
    equal = [openai_row(1) | {"custom_id": name} for name in "abc"]
    batch.write("in.jsonl", equal)

    done = batch.run("in.jsonl", "-o", "out.jsonl", "--dedupe", "--cache", "answers.sqlite")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "Not run again: 2 rows with the answer of an equal row." in done.stderr
    again = batch.run("in.jsonl", "-o", "other.jsonl", "--cache", "answers.sqlite")
    assert "Not run again: 3 rows from the cache." in again.stderr

    assert sorted(batch.ids()) == sorted(batch.ids("other.jsonl")) == ["a", "b", "c"]
    assert len(batch.provider.requests()) == 1


def test_a_cache_without_a_name_is_a_file_of_the_user(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(1)])
    done = batch.run("in.jsonl", "-o", "out.jsonl", "--cache")
    assert done.returncode == ExitCode.OK, done.stderr


def test_a_job_whose_key_is_refused_stops_before_all_its_rows_have_failed(own_engine: Batch) -> None:
    batch = own_engine
    batch.write("in.jsonl", [openai_row(number) for number in range(1, 201)])
    batch.commands.environment["OPENAI_API_KEY"] = "sk-refused-here"
    batch.provider.refuse_key("sk-refused-here")

    refused = batch.run("in.jsonl", "-o", "out.jsonl")

    assert refused.returncode == ExitCode.UNAUTHORIZED, refused.stderr
    assert "Stopped, because no key works: 0 of 200 rows done, 200 left" in refused.stderr
    assert "check OPENAI_API_KEY" in refused.stderr
    assert len(batch.provider.requests()) < 200
    assert not (batch.directory / "out.errors.jsonl").exists()


def test_answers_fit_a_schema_or_are_asked_for_again(batch: Batch) -> None:
    schema = {"title": "Mood", "type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
    (batch.directory / "mood.json").write_text(json.dumps(schema))
    good, bad = '{"mood": "good"}', '{"mood": 1}'
    rows = [
        {"id": "good", "prompt": "How?", "custom_options": {"simulate": {"text": good}}},
        {"id": "later", "prompt": "How?", "custom_options": {"simulate": {"text": good, "failures": [{"text": bad}]}}},
        {"id": "never", "prompt": "How?", "custom_options": {"simulate": {"text": bad}}},
    ]
    batch.write("in.jsonl", rows)

    done = batch.run("in.jsonl", "-o", "out.jsonl", *MODEL, "--schema", "mood.json")

    assert done.returncode == ExitCode.ROWS_FAILED
    assert {line["id"]: line["parsed"] for line in batch.lines()} == {
        "good": {"mood": "good"},
        "later": {"mood": "good"},
    }
    assert "1 row failed: output_validation, such as line 3 (never): " in done.stderr
    assert len(batch.provider.requests()) == 1 + 2 + 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("in.jsonl",), "--output is missing; name the file of the results, such as -o out.jsonl"),
        (("none.jsonl", "-o", "out.jsonl"), "none.jsonl: there is no such file; name the file of the rows"),
        ((".", "-o", "out.jsonl"), ".: is a directory; name a file of rows"),
        (("in.jsonl", "-o", "."), "is a directory; name a file, such as results.jsonl"),
        (("in.jsonl", "-o", "none/out.jsonl"), "none: is not there: make the directory, or choose another place"),
        (("in.jsonl", "-o", "in.jsonl/out.jsonl"), "in.jsonl: is no directory"),
        (("in.jsonl", "-o", "out.jsonl", "--errors", "none/e.jsonl"), "none: is not there"),
        (("in.jsonl", "-o", "-", "--job", "none/job"), "none: is not there"),
        (("in.jsonl", "-o", "-", "--json"), "--json and -o - both write to standard output"),
        (("in.jsonl", "-o", "out.jsonl", "--job", "job"), "--job is for -o - only"),
        (("in.jsonl", "-o", "out.jsonl", "--changed", "--force"), "--changed and --force exclude each other"),
        (("in.jsonl", "-o", "out.jsonl", "--max-cost", "0"), "takes US dollars, more than 0"),
        (("in.jsonl", "-o", "out.jsonl", "--schema", "in.jsonl"), "--schema in.jsonl: "),
        (("in.jsonl", "-o", "out.jsonl", "--max-output-token", "5"), "did you mean --max-output-tokens?"),
        (("-", "-o", "-"), "- for both IN and OUT needs --job DIR"),
        (("in.jsonl", "-o", "out.jsonl", "--provider", "nobody"), "nobody"),
    ],
)
def test_a_command_that_cannot_run_is_one_line(batch: Batch, arguments: tuple[str, ...], words: str) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2)])

    done = batch.run(*arguments)

    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert batch.provider.requests() == []
