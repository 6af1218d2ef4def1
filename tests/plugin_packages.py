"""Installs small packages with wire formats into a folder, as pip would: a module, and its metadata."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def documented_plugin() -> tuple[str, str]:
    """Return the example of ``docs/adding-a-provider.md``: the module, and the line of its entry point."""
    blocks = _BLOCK.findall((ROOT / "docs" / "adding-a-provider.md").read_text())
    (module,) = (text for language, text in blocks if language == "python")
    (point,) = re.findall(r"^ollama-chat = \"([\w:]+)\"$", "\n".join(text for _, text in blocks), re.MULTILINE)
    return module, f"ollama-chat = {point}"


def install(folder: Path, package: str, module: str, entry_point: str) -> None:
    """Write the package ``package`` 1.0 with one module and one wire format into ``folder``."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[headrace.wire_formats]\n{entry_point}\n")
    (folder / f"{package}.py").write_text(module)
