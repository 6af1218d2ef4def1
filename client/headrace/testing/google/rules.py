"""Checks the body of a Gemini request as Google does, with its error texts: one check for each part. Pure.

It is stricter than the real API: signatures are needed in all turns and for all models, not only in the last turn.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from typing import Any

from headrace.testing.google.schema_rules import fault_of_schema
from headrace.testing.shared.request_rules import is_of_type

_URL_SAFE = str.maketrans("-_", "+/")
FOREIGN_CALL_SIGNATURE = "skip_thought_signature_validator"
"""The word that Google takes instead of a signature, for a call that another provider's model made."""
MISSING_SIGNATURE = (
    "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly, and "
    "missing thought_signature may lead to degraded model performance. Additional data, function call `default_api:{name}` , "
    "position {position}. Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
)

# The names in JSON. The same names in snake_case are valid too, as in all JSON for protocol buffers.
_FIELD_NAMES = {
    "": """contents systemInstruction tools toolConfig generationConfig safetySettings cachedContent labels serviceTier
        continuationToken store""",
    "content": "role parts",
    "part": """text thought thoughtSignature inlineData fileData functionCall functionResponse executableCode
        codeExecutionResult videoMetadata mediaResolution partMetadata toolCall toolResponse""",
    "function_call": "id name args",
    "function_response": "id name response willContinue scheduling parts",
    "inline_data": "mimeType data displayName",
    "file_data": "mimeType fileUri displayName",
    "tool": """functionDeclarations googleSearch googleSearchRetrieval googleMaps codeExecution urlContext computerUse
        fileSearch mcpServers""",
    "declaration": "name description parameters parametersJsonSchema response responseJsonSchema behavior",
    "tool_config": "functionCallingConfig retrievalConfig includeServerSideToolInvocations",
    "function_calling_config": "mode allowedFunctionNames",
    "generation_config": """temperature topP topK candidateCount maxOutputTokens stopSequences responseLogprobs logprobs
        presencePenalty frequencyPenalty seed responseMimeType responseSchema responseJsonSchema responseModalities
        mediaResolution speechConfig thinkingConfig imageConfig enableEnhancedCivicAnswers audioTranscriptionConfig""",
    "thinking_config": "includeThoughts thinkingBudget thinkingLevel",
}
_FIELDS = {name: frozenset(fields.split()) for name, fields in _FIELD_NAMES.items()}
_DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "temperature": (int, float),
    "topP": (int, float),
    "topK": int,
    "candidateCount": int,
    "maxOutputTokens": int,
    "stopSequences": list,
    "responseMimeType": str,
    "thinkingConfig": dict,
    "seed": int,
    "presencePenalty": (int, float),
    "frequencyPenalty": (int, float),
    "responseLogprobs": bool,
    "logprobs": int,
}
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "topP": (0, 1),
    "maxOutputTokens": (1, 65_537),
    "candidateCount": (1, 1),  # more candidates are not simulated
    "topK": (1, 2**31 - 1),
    "seed": (-(2**31), 2**31 - 1),
    "presencePenalty": (-2, 2),
    "frequencyPenalty": (-2, 2),
    "logprobs": (0, 20),
}
_TIERS = ("unspecified", "flex", "standard", "priority")
_MODES = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
_LEVELS = ("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
_MEDIA_TYPES = ("text/plain", "application/json", "text/x.enum")
_UNSUPPORTED = ("image/gif", "image/tiff", "image/svg+xml", "application/msword", "application/zip")
_LABEL = re.compile(r"[^\WA-Z](?:[^\WA-Z]|-){0,62}")
_FUNCTION_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_MAX_STOPS = 5
_BEFORE_GEMINI_3 = re.compile(r"gemini-[12](?!\d)")


class GeminiRefusal(Exception):  # noqa: N818 - it is an answer of the API, not a fault of this program
    """The API refuses the request; the fields are those of the error response."""

    def __init__(self, message: str, word: str = "INVALID_ARGUMENT", status: int = 400) -> None:
        super().__init__(message, word, status)
        self.message = message
        self.word = word
        self.status = status


def signature_of(kind: str, content: object) -> str:
    """Return the thought signature of a part. The next request must send it back with the part."""
    said = json.dumps([kind, content], sort_keys=True, ensure_ascii=False)
    return base64.b64encode(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()).decode()


def refusal_of(body: object, model: str = "") -> GeminiRefusal | None:
    """Return why the real API would refuse this body for this model; None if it would not."""
    try:
        _check_body(body)
        _check_schemas(camel(body), model)
    except GeminiRefusal as refusal:
        return refusal
    return None


def camel(value: Any, field: str = "") -> dict[str, Any]:
    """Return an object of the request with its keys in camelCase. Raises GeminiRefusal for an unknown key."""
    where = f" at '{field}'" if field else ""
    if not isinstance(value, dict):
        raise GeminiRefusal(f"Invalid value{where}, {json.dumps(value)[:100]}: an object is needed.")
    known = _FIELDS[_kind(field)]
    renamed = {_camel_name(name): part for name, part in value.items()}
    for name in renamed:
        if name not in known:
            raise GeminiRefusal(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')
    return renamed


def _kind(field: str) -> str:
    last = re.sub(r"\[\d+\]", "", field.rpartition(".")[2])
    kinds = {"contents": "content", "system_instruction": "content", "parts": "part", "tools": "tool"}
    return kinds.get(last, "declaration" if last == "function_declarations" else last)


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _check_body(value: object) -> None:
    body = camel(value)
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise GeminiRefusal("* GenerateContentRequest.contents: contents is not specified\n")
    if "systemInstruction" in body:
        _check_content(body["systemInstruction"], "system_instruction")
    names = _check_tools(body.get("tools"))
    if "toolConfig" in body:
        _check_tool_config(body["toolConfig"], names)
    if "generationConfig" in body:
        _check_generation_config(body["generationConfig"])
    _check_tier_and_labels(body)
    token = body.get("continuationToken")
    if token is not None and not _is_base64(token):
        raise GeminiRefusal("Invalid value at 'continuation_token' (TYPE_BYTES), Base64 decoding failed")
    turns = [_check_turn(content, at, len(contents)) for at, content in enumerate(contents)]
    _check_calls_are_answered(turns)
    _check_signatures(turns)


def _check_tier_and_labels(body: dict[str, Any]) -> None:
    tier = body.get("serviceTier", "standard")
    if not isinstance(tier, str) or tier.lower() not in _TIERS:
        raise GeminiRefusal(f"Invalid value at 'service_tier', {json.dumps(tier)[:100]}")
    labels = body.get("labels", {})
    _check_type(labels, dict, "labels")
    for key, value in labels.items():
        _check_type(value, str, f"labels[{key}]")
        if not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value or "x"):
            raise GeminiRefusal(f"Invalid label '{key}': labels have at most 63 small letters, digits, '_' and '-'.")


def _check_schemas(body: dict[str, Any], model: str) -> None:
    """Check the schema of the answer, and those of functions if Google has to validate their calls."""
    generation = camel(body.get("generationConfig", {}), "generation_config")
    is_json = generation.get("responseMimeType") == "application/json"
    if is_json and body.get("tools") and _BEFORE_GEMINI_3.match(model):
        raise GeminiRefusal("Function calling with a response mime type: 'application/json' is unsupported")
    schemas = {"generation_config.response_json_schema": generation.get("responseJsonSchema", True)}
    config = camel(body.get("toolConfig", {}), "tool_config").get("functionCallingConfig", {})
    if config.get("mode") == "VALIDATED":
        for at, tool in enumerate(body.get("tools", [])):
            for number, declaration in enumerate(camel(tool, "tools").get("functionDeclarations", [])):
                schema = camel(declaration, "function_declarations").get("parametersJsonSchema", True)
                schemas[f"tools[{at}].function_declarations[{number}].parameters_json_schema"] = schema
    for where, schema in schemas.items():
        if (fault := fault_of_schema(schema, where)) is not None:
            raise GeminiRefusal(fault)


def _check_turn(value: object, at: int, count: int) -> tuple[str, list[dict[str, Any]]]:
    role = value.get("role") if isinstance(value, dict) else None
    if role not in {"user", "model"} and not (role is None and count == 1):
        raise GeminiRefusal("Please use a valid role: user, model.")
    return role or "user", _check_content(value, f"contents[{at}]")


def _check_content(value: object, where: str) -> list[dict[str, Any]]:
    parts = camel(value, where).get("parts")
    if not isinstance(parts, list) or not parts:
        raise GeminiRefusal(f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n")
    return [_check_part(part, f"{where}.parts[{at}]") for at, part in enumerate(parts)]


def _check_part(value: object, where: str) -> dict[str, Any]:
    part = camel(value, where)
    data = [name for name in _DATA if name in part]
    if not data:
        raise GeminiRefusal(
            f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one initialized field\n"
        )
    if len(data) > 1:
        raise GeminiRefusal(
            f"Invalid value at '{where}' (oneof), oneof field 'data' is already set. Cannot set '{data[1]}'"
        )
    for name in ("inline_data", "file_data", "function_call", "function_response"):
        if _camel_name(name) in part:
            part[_camel_name(name)] = camel(part[_camel_name(name)], f"{where}.{name}")
    _check_type(part.get("text", ""), str, f"{where}.text")
    _check_type(part.get("thought", False), bool, f"{where}.thought")
    if "thoughtSignature" in part and not _is_base64(part["thoughtSignature"]):
        raise GeminiRefusal(f"Invalid value at '{where}.thought_signature' (TYPE_BYTES), Base64 decoding failed")
    if "inlineData" in part and not (_is_base64(part["inlineData"].get("data")) and part["inlineData"].get("mimeType")):
        raise GeminiRefusal(f"Invalid value at '{where}.inline_data': data in base64 and mime_type are needed")
    if "inlineData" in part:
        _check_media_type(part["inlineData"])
    if "fileData" in part and not part["fileData"].get("fileUri"):
        raise GeminiRefusal(f"Invalid value at '{where}.file_data': file_uri is needed")
    _check_function_part(part, where)
    return part


def _check_function_part(part: dict[str, Any], where: str) -> None:
    for name, inner in (("functionCall", "args"), ("functionResponse", "response")):
        if name not in part:
            continue
        if not part[name].get("name"):
            raise GeminiRefusal(f"* GenerateContentRequest.{where}.{name}.name: Name cannot be empty.\n")
        _check_type(part[name].get(inner, {}), dict, f"{where}.{name}.{inner}")
    for result in part.get("functionResponse", {}).get("parts", []):
        _check_media_type(camel(camel(result, f"{where}.parts").get("inlineData"), f"{where}.inline_data"))


def _check_media_type(blob: dict[str, Any]) -> None:
    kind = str(blob.get("mimeType")).partition(";")[0]
    if kind in _UNSUPPORTED or "/" not in kind:
        raise GeminiRefusal(f"Unsupported MIME type: {kind}")


def _check_type(value: object, kind: type | tuple[type, ...], where: str) -> None:
    if not is_of_type(value, kind):
        raise GeminiRefusal(f"Invalid value at '{where}', {json.dumps(value)[:100]}")


def _check_tools(tools: object) -> set[str]:
    names: set[str] = set()
    _check_type(tools or [], list, "tools")
    for at, value in enumerate(tools if isinstance(tools, list) else []):
        where = f"tools[{at}]"
        declarations = camel(value, where).get("functionDeclarations", [])
        _check_type(declarations, list, f"{where}.function_declarations")
        for number, declaration in enumerate(declarations):
            names.add(_check_declaration(declaration, f"{where}.function_declarations[{number}]"))
    return names


def _check_declaration(value: object, where: str) -> str:
    declaration = camel(value, where)
    name = declaration.get("name")
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        raise GeminiRefusal(
            f"* GenerateContentRequest.{where}.name: Invalid function name. Must start with a letter or an underscore. Must be "
            "alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 128.\n"
        )
    _check_type(declaration.get("description", ""), str, f"{where}.description")
    schemas = [declaration[key] for key in ("parameters", "parametersJsonSchema") if key in declaration]
    if len(schemas) > 1:
        raise GeminiRefusal(f"{where}: only one of parameters and parameters_json_schema may be set")
    for schema in schemas:
        _check_type(schema, dict, f"{where}.parameters")
        if schema.get("type") not in {"object", "OBJECT"}:
            raise GeminiRefusal(f"* GenerateContentRequest.{where}.parameters.type: should be OBJECT\n")
    return name


def _check_tool_config(value: object, names: set[str]) -> None:
    config = camel(value, "tool_config").get("functionCallingConfig")
    if config is None:
        return
    config = camel(config, "tool_config.function_calling_config")
    mode = config.get("mode", "AUTO")
    if mode not in _MODES:
        raise GeminiRefusal(f"Invalid value at 'tool_config.function_calling_config.mode', {json.dumps(mode)}")
    if not names:
        raise GeminiRefusal("Function calling config is set without function_declarations.")
    allowed = config.get("allowedFunctionNames", [])
    _check_type(allowed, list, "tool_config.function_calling_config.allowed_function_names")
    if allowed and mode not in {"ANY", "VALIDATED"}:
        raise GeminiRefusal("Allowed function names should be set only when function calling mode is ANY or VALIDATED.")
    for name in allowed:
        if name not in names:
            raise GeminiRefusal(f"Allowed function name {name} is not found in function declarations.")


def _check_generation_config(value: object) -> None:
    config = camel(value, "generation_config")
    for name, kind in _TYPES.items():
        if name in config:
            _check_type(config[name], kind, f"generation_config.{name}")
    for name, (low, high) in _RANGES.items():
        if name in config and not low <= config[name] <= high:
            raise GeminiRefusal(
                f"* GenerateContentRequest.generation_config.{name}: must be in the range [{low}, {high}].\n"
            )
    if "logprobs" in config and not config.get("responseLogprobs"):
        raise GeminiRefusal("Logprobs are requested, but response_logprobs is not set.")
    if len(config.get("stopSequences", [])) > _MAX_STOPS:
        raise GeminiRefusal(
            f"* GenerateContentRequest.generation_config.stop_sequences: at most {_MAX_STOPS} are supported.\n"
        )
    media_type = config.get("responseMimeType", "text/plain")
    if media_type not in _MEDIA_TYPES:
        raise GeminiRefusal(
            f"* GenerateContentRequest.generation_config.response_mime_type: allowed are {_MEDIA_TYPES}.\n"
        )
    if media_type == "text/plain" and ("responseJsonSchema" in config or "responseSchema" in config):
        raise GeminiRefusal(
            "* GenerateContentRequest.generation_config.response_schema: only allowed when mime type is JSON.\n"
        )
    if "thinkingConfig" in config:
        _check_thinking_config(config["thinkingConfig"])


def _check_thinking_config(value: object) -> None:
    where = "generation_config.thinking_config"
    config = camel(value, where)
    if "thinkingBudget" in config and "thinkingLevel" in config:
        raise GeminiRefusal("You can only set only one of thinking budget and thinking level.")
    _check_type(config.get("thinkingBudget", 0), int, f"{where}.thinking_budget")
    level = config.get("thinkingLevel", "LOW")
    if not isinstance(level, str) or level.upper() not in _LEVELS:
        raise GeminiRefusal(f"Invalid value at '{where}.thinking_level', {json.dumps(level)[:100]}")


_Turns = list[tuple[str, list[dict[str, Any]]]]


def _check_calls_are_answered(turns: _Turns) -> None:
    calls: list[dict[str, Any]] = []
    for role, parts in turns:
        results = [part["functionResponse"] for part in parts if "functionResponse" in part]
        if results and (role == "model" or not calls):
            raise GeminiRefusal(
                "Please ensure that function response turn comes immediately after a function call turn."
            )
        _check_results(calls, results)
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        if calls and role == "user":
            raise GeminiRefusal("Please ensure that function call turn comes from the model.")
    _check_results(calls, [])


def _check_results(calls: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    if len(calls) != len(results):
        message = "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn."
        raise GeminiRefusal(message)
    if Counter(_answerable(call) for call in calls) != Counter(_answerable(result) for result in results):
        raise GeminiRefusal(
            "Please ensure that function response parts match the names and ids of the function call parts."
        )


def _answerable(part: dict[str, Any]) -> tuple[str, str | None]:
    return part["name"], part.get("id")


def _check_signatures(turns: _Turns) -> None:
    for position, (role, parts) in enumerate(turns, 1):
        calls = [part for part in parts if "functionCall" in part]
        if calls and role == "model" and "thoughtSignature" not in calls[0]:
            raise GeminiRefusal(MISSING_SIGNATURE.format(name=calls[0]["functionCall"]["name"], position=position))
        for part in parts:
            if calls and part is calls[0] and part["thoughtSignature"] == FOREIGN_CALL_SIGNATURE:
                continue
            if "thoughtSignature" in part and part["thoughtSignature"] != _own_signature(part):
                raise GeminiRefusal("Corrupted thought signature.")


def _own_signature(part: dict[str, Any]) -> str:
    if "functionCall" in part:
        return signature_of(part["functionCall"]["name"], part["functionCall"].get("args", {}))
    if "inlineData" in part:
        return signature_of("media", part["inlineData"]["data"])
    return signature_of("thought" if part.get("thought") else "text", part.get("text", ""))


def _is_base64(value: object) -> bool:
    try:
        # Both alphabets of base64 are valid in JSON for protocol buffers.
        return isinstance(value, str) and bool(base64.b64decode(value.translate(_URL_SAFE), validate=True))
    except (binascii.Error, ValueError):
        return False
