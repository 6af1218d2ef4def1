"""The wire formats that ship with Headrace, by the names that ``api =`` has in ``headrace.toml``.

The format ``openai-chat`` is declared in the folder ``openai_chat``: ``FORMAT`` in its ``api.py``.
"""

from __future__ import annotations

from importlib import import_module

from headrace.settings.wire_format_names import BUILT_IN_FORMATS
from headrace_workers.providers.shared.wire_format import WireFormat


def _declared(name: str) -> WireFormat:
    # By name, so that the list of names in headrace.settings, which clients read too, is the only list.
    module = import_module(f"headrace_workers.providers.{name.replace('-', '_')}.api")
    declared: WireFormat = module.FORMAT
    return declared


WIRE_FORMATS: dict[str, WireFormat] = {name: _declared(name) for name in BUILT_IN_FORMATS}
