"""Settings of Sphinx, which makes the site of this folder: ``scripts/docs`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from docutils import nodes

import headrace

project = "Headrace"
author = "The Headrace authors"
project_copyright = author
release = headrace.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "command_line"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = "Headrace"
html_copy_source = False
highlight_language = "none"

# Every heading can be linked to, as on GitHub.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# A name that no page documents is an error, but for names of other projects and of private modules.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!headrace\.[A-Z]).*"),
]

# The type ``bytes`` is no page of this site, but TokenLogprob and TopLogprob have a field of this name.
suppress_warnings = ["ref.python"]


def link_to_public_name(app: Any, env: Any, node: Any, text: nodes.Element) -> nodes.Element | None:
    """Link a type such as ``headrace.types.Usage`` to the page of ``headrace.Usage``, its public name."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in headrace.__all__ or node["reftarget"] == f"headrace.{name}":
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"headrace.{name}", node, text)


def add_default(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Add the default of a Struct's field to its words: Sphinx shows none."""
    owner, _, attribute = name.rpartition(".")
    module, _, kind = owner.rpartition(".")
    struct = getattr(sys.modules.get(module), kind, None)
    if what != "attribute" or not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
        return
    [field] = [field for field in msgspec.structs.fields(struct) if field.name == attribute]
    if not field.required:
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        lines += ["", f"Default: ``{default!r}``.", ""]


def setup(app: Any) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", add_default)
    app.connect("missing-reference", link_to_public_name)
