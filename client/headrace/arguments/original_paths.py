"""Paths of arguments as the caller wrote them, for errors. Pure.

Headrace reads some arguments as something else. A worker knows only the request: it blames ``messages[1].content[0]``,
where the caller gave ``messages[1].tool_calls[0]``. The error must name the caller's path.
"""

from __future__ import annotations

from collections.abc import Mapping

OriginalPaths = dict[str, str]
"""Path in the request → path in the caller's arguments, for each path that differs."""


def original_path(path: str, original_paths: Mapping[str, str]) -> str:
    """Return the caller's path for a path in the request. A path below one that differs is translated, too."""
    end = len(path)
    while end > 0 and path[:end] not in original_paths:
        end = max(path.rfind(".", 0, end), path.rfind("[", 0, end))
    return original_paths[path[:end]] + path[end:] if end > 0 else path
