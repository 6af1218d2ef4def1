"""A program that runs batches on a Ray cluster with ``headrace.ray``: the driver of tests/faults/test_ray.py.

Argument: the address of the cluster. Each line of its input is a job, as JSON:

* ``rows``: how many rows, with the column ``id`` from 0; or ``files``: a folder of Parquet files with this column.
* ``stage``: arguments of the stage besides the model.
* ``output``: the Parquet file, or with ``checkpoint`` the folder of files, to write.
* ``checkpoint``: the folder of Ray's checkpoints.

Prints ``done`` after each.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data.checkpoint import CheckpointConfig

from headrace.ray import EngineStage

BLOCKS = 8


def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    for line in sys.stdin:
        run(json.loads(line))
        print("done", flush=True)


def run(job: dict[str, Any]) -> None:
    context = ray.data.DataContext.get_current()  # a dataset has a copy of it from its beginning
    if "checkpoint" in job:
        context.checkpoint_config = CheckpointConfig("id", job["checkpoint"], delete_checkpoint_on_success=False)
    if "files" in job:
        rows = ray.data.read_parquet(job["files"], override_num_blocks=BLOCKS)
    else:
        rows = ray.data.range(job["rows"], override_num_blocks=BLOCKS)
    answered = rows.map_batches(
        EngineStage,
        fn_constructor_kwargs={"model": "gpt-4o", **job["stage"]},
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
        resources={"engine": 1},
        udf_modifying_row_count=False,
    )
    if "checkpoint" not in job:
        pq.write_table(pa.Table.from_pylist(answered.take_all()), job["output"])
    else:
        answered.write_parquet(job["output"])


if __name__ == "__main__":
    main()
