"""Says what was meant by an unknown argument: the names of other libraries, misspelt names, and what is not offered. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.text.similar_names import meant

_SYSTEM = "give the text as a message: {'role': 'system', 'content': …}"
_ADDRESS = "the address of a provider is base_url in headrace.toml, or a variable such as OPENAI_BASE_URL"
_HEADERS = "Headrace sends no headers of yours"
_USAGE = "leave it out: the usage comes with every run"
_PROXY = "the workers take their proxies from the environment: HTTPS_PROXY and NO_PROXY"

_SHARED = {
    "api_key": "use provider_api_key",
    "apiKey": "use provider_api_key",
    "extra_body": "use custom_options",
    "extra_params": "use custom_options",
    "allowed_openai_params": "use custom_options",
    "user": "use user_id, or custom_options={'user': …} to send it to the provider",
    "end_user": "use user_id",
    "timeout": "use timeout_ms, in milliseconds: timeout_ms=30000 for 30 s",
    "request_timeout": "use timeout_ms, in milliseconds: timeout_ms=30000 for 30 s",
    "model_name": "use model",
    "model_id": "use model",
    "engine": "use model",
    "deployment": "use model",
    "deployment_id": "use model",
    "azure_deployment": "use model",
    "custom_llm_provider": "use provider",
    "model_provider": "use provider",
    "base_url": _ADDRESS,
    "api_base": _ADDRESS,
    "api_version": _ADDRESS,
    "azure_endpoint": _ADDRESS,
    "http_options": _ADDRESS,
    "extra_headers": _HEADERS,
    "default_headers": _HEADERS,
    "headers": _HEADERS,
    "extra_query": "put it into the query of base_url in headrace.toml",
    "num_retries": "use max_retries",
    "retries": "use max_retries",
    "fallback_models": "use fallbacks",
    "http_client": _PROXY,
    "proxy": _PROXY,
    "drop_params": "an argument that a provider does not take is always refused",
    "mock_response": "headrace.testing has a simulated provider",
    "callbacks": "give spans to a sink in headrace.toml",
    "config": "give its fields as arguments of their own",
    "trace": "use trace_id, parent_span_id or send_trace",
    "id": "use span_id",
    "run_id": "use span_id",
}
"""Argument of another library → what to do with Headrace. For runs and for embeddings."""

_OF_RUNS = {
    "max_tokens": "use max_output_tokens",
    "max_completion_tokens": "use max_output_tokens",
    "max_new_tokens": "use max_output_tokens",
    "maxOutputTokens": "use max_output_tokens",
    "max_tokens_to_sample": "use max_output_tokens",
    "num_predict": "use max_output_tokens",
    "stop": "use stop_sequences, a list of str",
    "stopSequences": "use stop_sequences",
    "stop_words": "use stop_sequences",
    "topP": "use top_p",
    "topK": "use top_k",
    "presencePenalty": "use presence_penalty",
    "frequencyPenalty": "use frequency_penalty",
    "system": _SYSTEM,
    "system_prompt": _SYSTEM,
    "system_message": _SYSTEM,
    "system_instruction": _SYSTEM,
    "systemInstruction": _SYSTEM,
    "instructions": _SYSTEM,
    "prompt": "use messages: a str, or a list of messages",
    "input": "use messages: a str, or a list of messages",
    "inputs": "use messages: a str, or a list of messages",
    "contents": "use messages: a str, or a list of messages",
    "content": "use messages: a str, or a list of messages",
    "history": "use messages: a list of all messages",
    "message": "use messages: a str, or a list of messages",
    "thinking": "use reasoning_effort, such as 'low'",
    "thinking_config": "use reasoning_effort, such as 'low'",
    "effort": "use reasoning_effort",
    "reasoning": "use reasoning_effort, such as 'low'",
    "output_config": "use reasoning_effort or response_format",
    "response_model": "use response_type",
    "text_format": "use response_type",
    "output_format": "use response_type or response_format",
    "output_type": "use response_type",
    "parse_as": "use response_type",
    "automatic_function_calling": "run_tools calls your functions",
    "response_schema": "use response_type or response_format",
    "response_json_schema": "use response_format",
    "response_mime_type": "use response_format",
    "json_schema": "use response_format",
    "text": "use response_format or verbosity",
    "stream_options": _USAGE,
    "include_usage": _USAGE,
    "response_logprobs": "use logprobs and top_logprobs",
    "disable_parallel_tool_use": "use parallel_tool_calls=False",
    "tool_config": "use tool_choice",
    "labels": "use metadata",
    "on_event": "use stream=True, and iterate stream.events()",
    "max_turns": "run_tools takes it",
    "max_steps": "run_tools takes max_turns",
    "max_iterations": "run_tools takes max_turns",
    "max_rounds": "run_tools takes max_turns",
    "max_tool_rounds": "run_tools takes max_turns",
    "chain_limit": "run_tools takes max_turns",
    "agent": "run_tools calls your functions",
}
"""The same, for runs only."""

_OF_EMBEDDINGS = {
    "messages": "use input: a str, or a list of them",
    "prompt": "use input: a str, or a list of them",
    "text": "use input: a str, or a list of them",
    "texts": "use input: a str, or a list of them",
    "inputs": "use input: a str, or a list of them",
    "contents": "use input: a str, or a list of them",
    "content": "use input: a str, or a list of them",
    "output_dimensionality": "use dimensions",
    "outputDimensionality": "use dimensions",
    "output_dimension": "use dimensions",
    "encoding_format": "leave it out: the vectors are always lists of float",
    "stream": "embeddings are not streamed",
}
"""The same, for embeddings only."""

_KEYS = "keys come from the environment, such as OPENAI_API_KEY, or with each run as provider_api_key"
_TIMES = "give timeout_ms to each run, or set total_timeout in headrace.toml"
_WITH_EACH_RUN = "give it to each run"
_OF_CLIENTS = {
    "api_key": _KEYS,
    "auth_token": _KEYS,
    "credentials": _KEYS,
    "provider_api_key": "give it to each run, or set the provider's variable, such as OPENAI_API_KEY",
    "base_url": _ADDRESS,
    "api_base": _ADDRESS,
    "azure_endpoint": _ADDRESS,
    "api_version": _ADDRESS,
    "http_options": _ADDRESS,
    "default_query": "put it into the query of base_url in headrace.toml",
    "default_headers": _HEADERS,
    "organization": _HEADERS,
    "project": _HEADERS,
    "timeout": _TIMES,
    "timeout_ms": _TIMES,
    "max_retries": "give it to each run, or set max_retries in headrace.toml",
    "http_client": _PROXY,
    "model": _WITH_EACH_RUN,
    "provider": _WITH_EACH_RUN,
    "engine": "use address",
    "url": "use address for an engine; the address of a provider is base_url in headrace.toml",
}
"""Argument of another library's client → what to do with Headrace."""

_NOT_OFFERED = frozenset({
    "n", "functions", "function_call", "logit_bias", "modalities", "audio", "prediction", "store", "moderation",
    "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "web_search_options",
    "background", "conversation", "previous_response_id", "include", "truncation", "context_management", "max_tool_calls",
    "cache_control", "container", "mcp_servers", "betas", "speed", "inference_geo", "top_a", "min_p",
    "repetition_penalty", "best_of", "echo", "suffix", "guided_json", "chat_template_kwargs", "response_modalities",
    "auto_truncate", "input_type", "access_programs", "background_options", "diagnostics", "user_profile_id",
    "workspace_id", "compaction", "billing_policy",
})  # fmt: skip
"""Fields of some provider that Headrace has no argument for."""

_INSTEAD = {"functions": "use tools", "function_call": "use tool_choice"}
_OF_GOOGLE = {
    "candidate_count": "{'generationConfig': {'candidateCount': …}}",
    "candidateCount": "{'generationConfig': {'candidateCount': …}}",
    "generation_config": "{'generationConfig': …}",
    "safety_settings": "{'safetySettings': …}",
    "cached_content": "{'cachedContent': …}",
    "response_modalities": "{'generationConfig': {'responseModalities': …}}",
    "image_config": "{'generationConfig': {'imageConfig': …}}",
    "media_resolution": "{'generationConfig': {'mediaResolution': …}}",
    "speech_config": "{'generationConfig': {'speechConfig': …}}",
    "task_type": "{'taskType': …}",
    "title": "{'title': …}",
}
"""Fields of Google whose place in the request is not that of the Python library."""


def advice_on(name: str, known: Iterable[str], *, is_run: bool) -> str:
    """Return what to do about an argument that does not exist. ``known``: the arguments that exist."""
    told = _SHARED | (_OF_RUNS if is_run else _OF_EMBEDDINGS)
    if name in told:
        return f"there is no such argument; {told[name]}"
    option = _OF_GOOGLE.get(name) or f"{{{name!r}: …}}"
    if name in _NOT_OFFERED or name in _OF_GOOGLE:
        instead = f"{_INSTEAD[name]}; " if name in _INSTEAD else ""
        return f"is not offered; {instead}custom_options={option} passes it on as it is"
    if (close := meant(name, known)) is not None:
        return f"there is no such argument; did you mean {close}?"
    if (close := meant(name, told)) is not None:
        return f"there is no such argument; if you mean {close}: {told[close]}"
    return "there is no such argument; custom_options passes a field of the provider's request on as it is"


def advice_for_client(name: str) -> str:
    """Return what to do about an argument of ``Client`` that does not exist."""
    if name in _OF_CLIENTS:
        return f"a client has no such argument; {_OF_CLIENTS[name]}"
    if (close := meant(name, ("address", "connect_timeout"))) is not None:
        return f"a client has no such argument; did you mean {close}?"
    return "a client has no such argument; it takes address and connect_timeout"
