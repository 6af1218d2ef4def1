"""A web service that streams answers. A refusal of the provider has its own status; a browser that leaves ends its run.

uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from headrace import (
    AuthenticationError,
    Client,
    HeadraceError,
    InvalidRequestError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
)

app = FastAPI()
client = Client()


def refusal(error: HeadraceError) -> HTTPException:
    """Return the answer for a run that failed before its first chunk."""
    match error:
        case RateLimitError() | QueueFullError():
            seconds = max(1, round(error.retry_after or 1))
            return HTTPException(429, str(error), headers={"Retry-After": str(seconds)})
        case AuthenticationError():
            return HTTPException(401, "the provider does not take the key")
        case InvalidRequestError():
            return HTTPException(400, str(error))
        case ProviderUnavailableError():
            return HTTPException(503, str(error))
        case _:
            return HTTPException(502, str(error))


@app.post("/chat")
async def chat(message: str, model: str = "gpt-4o") -> StreamingResponse:
    """Stream the answer as plain text."""
    try:
        stream = await client.arun_local(model=model, messages=message, stream=True)
        await stream.started()
    except HeadraceError as error:
        raise refusal(error) from error

    async def text() -> AsyncIterator[str]:
        async with stream:
            async for chunk in stream:
                yield chunk

    return StreamingResponse(text(), media_type="text/plain")
