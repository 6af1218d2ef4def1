"""Headrace from threads.

The blocking client, a thread for each request under way, the embedded engine, default settings.
"""

from __future__ import annotations

import headrace
from bench.contestants.common import TimedAnswer, run_threads
from bench.works import MESSAGES, MODEL, Work


def main() -> None:
    """Be the contestant."""
    with headrace.Client() as client:

        def answer(work: Work, received: TimedAnswer) -> None:
            options = {"simulate": work.script()}
            if not work.streams:
                result = client.run_local(model=MODEL, messages=MESSAGES, custom_options=options)
                received.add(result.text)
                return
            for text in client.run_local(stream=True, model=MODEL, messages=MESSAGES, custom_options=options):
                received.add(text)

        run_threads(answer, client.flush)


if __name__ == "__main__":
    main()
