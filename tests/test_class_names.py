"""A public class name exists once in the packages, so that a name in a message or a traceback says which class it is."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLASS = re.compile(r"^class ([A-Za-z]\w*)", re.MULTILINE)


def test_a_class_name_exists_once() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for package in ("client", "engine", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            for name in CLASS.findall(path.read_text("utf-8")):
                places[name].append(str(path.relative_to(ROOT)))

    assert len(places) > 500
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
