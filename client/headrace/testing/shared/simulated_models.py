"""What each of OpenAI's models refuses, for both of its simulated APIs, with OpenAI's error texts. Pure.

As of 2026-11, from the answers of the real API. A model that is not listed refuses nothing by its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from headrace.testing.shared.request_rules import OpenAIRefusal

Reasons = Literal["never", "if asked", "by default", "always"]
"""``if asked``: only with an effort. ``by default``: unless the effort is ``none``."""


class SimulatedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of model. ``chat`` says where it stops on Chat Completions.

    ``all``: nowhere. ``no tools`` and ``no thinking tools``: it takes no functions, or none while it reasons. ``none``: it
    does not exist there.
    """

    names: str
    efforts: str
    reasons: Reasons
    chat: Literal["all", "no thinking tools", "no tools", "none"] = "all"
    refused: tuple[str, ...] = ()

    def is_reasoning(self, effort: str | None) -> bool:
        """Return whether the model reasons with this effort."""
        return effort != "none" and self.reasons != "never" and (self.reasons != "if asked" or effort is not None)


_MODELS = (
    SimulatedModel(
        names=r"gpt-6-astra|gpt-6\.1-sol", efforts="low medium high xhigh max", reasons="always", chat="no tools"
    ),
    SimulatedModel(
        names=r"gpt-6\.1-terra", efforts="none low medium high xhigh max", reasons="by default", chat="no tools"
    ),
    SimulatedModel(
        names=r"gpt-6-sol|gpt-6-luna|gpt-5\.6(-sol|-terra|-luna)?",
        efforts="none low medium high xhigh max",
        reasons="by default",
        chat="no thinking tools",
    ),
    SimulatedModel(names=r"gpt-5\.[245]-pro", efforts="medium high xhigh", reasons="always", chat="none"),
    SimulatedModel(
        names=r"gpt-5\.5", efforts="none low medium high xhigh", reasons="by default", chat="no thinking tools"
    ),
    SimulatedModel(
        names=r"gpt-5\.4(-mini|-nano)?",
        efforts="none low medium high xhigh",
        reasons="if asked",
        chat="no thinking tools",
    ),
    SimulatedModel(names=r"gpt-5\.[123]-chat-latest", efforts="medium", reasons="always"),
    SimulatedModel(names=r"gpt-5-codex", efforts="low medium high", reasons="always", chat="none"),
    SimulatedModel(names=r"gpt-5-pro", efforts="high", reasons="always", chat="none"),
    SimulatedModel(names=r"gpt-5\.1", efforts="none low medium high", reasons="if asked", refused=("stop",)),
    SimulatedModel(names=r"gpt-5\.2", efforts="none low medium high xhigh", reasons="if asked", refused=("stop",)),
    SimulatedModel(
        names=r"gpt-5(-mini|-nano)?", efforts="minimal low medium high", reasons="always", refused=("stop",)
    ),
    SimulatedModel(names=r"(o3|o4-mini)-deep-research", efforts="medium", reasons="always", chat="none"),
    SimulatedModel(names=r"o1-pro|o3-pro", efforts="low medium high", reasons="always", chat="none"),
    SimulatedModel(
        names=r"o3|o4-mini", efforts="low medium high", reasons="always", refused=("stop", "parallel_tool_calls")
    ),
    SimulatedModel(names=r"o1|o3-mini", efforts="low medium high", reasons="always", refused=("parallel_tool_calls",)),
    SimulatedModel(names=r"gpt-5-chat-latest|gpt-4.*|gpt-3\.5.*|chatgpt-4o.*", efforts="", reasons="never"),
)
_DATE = re.compile(r"-20\d\d-\d\d-\d\d$")
_SAMPLING = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}


def simulated_model(name: str) -> SimulatedModel | None:
    """Return the kind of a model; None if it is not listed."""
    plain = _DATE.sub("", name)
    return next((model for model in _MODELS if re.fullmatch(model.names, plain)), None)


def check_on_chat(body: dict[str, Any]) -> None:
    """Refuse what the model does not take on Chat Completions."""
    name = body["model"]
    if (model := simulated_model(name)) is None:
        return
    if model.chat == "none":
        message = "This model is only supported in v1/responses and not in v1/chat/completions."
        raise OpenAIRefusal(message, "model", status=404)
    effort = body.get("reasoning_effort")
    if effort is not None and not model.efforts:
        message = "Unrecognized request argument supplied: reasoning_effort"
        raise OpenAIRefusal(message, "reasoning_effort", "unknown_parameter")
    _check_effort("reasoning_effort", effort, model)
    functions = [tool for tool in body.get("tools") or [] if isinstance(tool, dict) and tool.get("type") == "function"]
    if functions and (model.chat == "no tools" or (model.chat == "no thinking tools" and model.is_reasoning(effort))):
        message = f"Function tools with reasoning_effort are not supported for {name} in /v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to 'none'."
        raise OpenAIRefusal(message, "reasoning_effort")
    _check_parameters(body, model, effort, (*_SAMPLING, "logprobs", "top_logprobs"))
    _check_verbosity("verbosity", body.get("verbosity"), model)


def check_on_responses(body: dict[str, Any]) -> None:
    """Refuse what the model does not take on the Responses API."""
    if (model := simulated_model(body["model"])) is None:
        return
    effort = (body.get("reasoning") or {}).get("effort")
    if effort is not None and not model.efforts:
        raise _unsupported("reasoning.effort")
    _check_effort("reasoning.effort", effort, model)
    _check_parameters(body, model, effort, ("temperature", "top_p", "top_logprobs"))
    _check_verbosity("text.verbosity", (body.get("text") or {}).get("verbosity"), model)


def _check_effort(where: str, effort: object, model: SimulatedModel) -> None:
    supported = model.efforts.split()
    if effort is not None and effort not in supported:
        words = ", ".join(f"'{word}'" for word in supported)
        message = (
            f"Unsupported value: '{where}' does not support '{effort}' with this model. Supported values are: {words}."
        )
        raise OpenAIRefusal(message, where, "unsupported_value")


def _check_parameters(body: dict[str, Any], model: SimulatedModel, effort: str | None, sampling: Sequence[str]) -> None:
    for name in sampling if model.is_reasoning(effort) else ():
        value = body.get(name)
        if name in _SAMPLING and value not in (None, _SAMPLING[name]):
            message = f"Unsupported value: '{name}' does not support {value} with this model. Only the default ({_SAMPLING[name]}) value is supported."
            raise OpenAIRefusal(message, name, "unsupported_value")
        if name not in _SAMPLING and value:
            raise _unsupported(name)
    for name in model.refused:
        if body.get(name) is not None:
            raise _unsupported(name)


def _check_verbosity(where: str, value: object, model: SimulatedModel) -> None:
    if model.reasons == "never" and value not in (None, "medium"):
        message = (
            f"Unsupported value: '{where}' does not support '{value}' with this model. Supported values are: 'medium'."
        )
        raise OpenAIRefusal(message, where, "unsupported_value")


def _unsupported(name: str) -> OpenAIRefusal:
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    return OpenAIRefusal(message, name, "unsupported_parameter")
