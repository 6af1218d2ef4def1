"""The wire formats that ship with Headrace, by the names that ``api =`` has in ``headrace.toml``.

The format ``openai-chat`` is declared in the folder ``openai_chat``: ``FORMAT`` in its ``api.py``. A format is imported when it is asked
for the first time: a worker starts faster without those that no run has needed yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from headrace.settings.wire_format_names import BUILT_IN_FORMATS
from headrace_workers.providers.shared.wire_format import WireFormat


class BuiltInFormats(Mapping[str, WireFormat]):
    """Name → the wire format of that name. Each is imported at its first use."""

    def __init__(self) -> None:
        self._declared: dict[str, WireFormat] = {}

    def __getitem__(self, name: str) -> WireFormat:
        found = self._declared.get(name)
        if found is None:
            if name not in BUILT_IN_FORMATS:
                raise KeyError(name)
            # By name, so that the list of names in headrace.settings, which clients read too, is the only list.
            module = import_module(f"headrace_workers.providers.{name.replace('-', '_')}.api")
            found = self._declared[name] = module.FORMAT
        return found

    def __contains__(self, name: object) -> bool:
        return name in BUILT_IN_FORMATS

    def __iter__(self) -> Iterator[str]:
        return iter(BUILT_IN_FORMATS)

    def __len__(self) -> int:
        return len(BUILT_IN_FORMATS)

    def import_next(self) -> bool:
        """Import one format that was not asked for yet. Return False if there is none.

        A worker does that soon after its start, one by one: the files on the disk may be of another version when a run needs them.
        """
        missing = next((name for name in BUILT_IN_FORMATS if name not in self._declared), None)
        return missing is not None and self.get(missing) is not None


WIRE_FORMATS = BuiltInFormats()
"""The formats of this process."""
