"""``headrace batch``: runs a file of prompts, and goes on where it was stopped or killed."""

from __future__ import annotations

import argparse

from headrace.cli.batch.job_arguments import add_arguments
from headrace.cli.shared.exit_codes import ExitCode

__all__ = ["HELP", "NAME", "add_arguments", "main"]

NAME = "batch"
HELP = "Run a file of prompts, as fast as the limits allow; the same command goes on after a stop or a kill"


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the job, or only look at its rows. Raises HeadraceError if it cannot start, or cannot go on."""
    # These import a client, which other commands do not need.
    from headrace.cli.batch.job_plan import job_plan

    plan = job_plan(arguments)
    if arguments.dry_run or plan.files is None:
        from headrace.cli.batch.dry_run import dry_run

        return dry_run(plan, is_json=arguments.json, is_quiet=arguments.quiet)
    from headrace.cli.batch.job_run import JobSwitches, run_job

    return run_job(
        plan,
        plan.files,
        JobSwitches(
            changed=arguments.changed,
            force=arguments.force,
            retry_failed=arguments.retry_failed,
            is_quiet=arguments.quiet,
            as_json=arguments.json,
        ),
    )
