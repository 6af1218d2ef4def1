"""BatchHttp: HTTP calls to batch APIs: any method, uploads from files, and downloads line by line. Blocks its thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from headrace.settings.proxy_choice import proxy_of
from headrace.version import VERSION
from headrace_workers.providers.shared.wire_format import ProviderApi, ProviderFailure

_PIECE = 1024 * 1024
_TIMEOUT = 300.0
"""Seconds that the provider may be silent. A batch of many requests takes a while to be taken."""
_LONGEST_LINE = 64 * 1024 * 1024
_LONGEST_BODY = 256 * 1024 * 1024
_LONGEST_ERROR = 64 * 1024
_MOST_REDIRECTS = 4
_PORTS = {"http": 80, "https": 443}

Headers = list[tuple[str, str]]


class BatchCallError(Exception):
    """A call failed. ``may_have_arrived``: the provider may have carried it out all the same."""

    def __init__(self, failure: ProviderFailure, *, may_have_arrived: bool = False) -> None:
        super().__init__(failure)
        self.failure = failure
        self.may_have_arrived = may_have_arrived


class BatchReply(msgspec.Struct, frozen=True):
    """A whole response with status 2xx. Header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"BatchReply(body={len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no header, and nothing that a model said."""
        return [("body", len(self.body))]

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises BatchCallError if it is none."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise unexpected("the response is no JSON object") from None


def unexpected(reason: str) -> BatchCallError:
    """Return the error for a response that no batch API sends. The call may have been carried out."""
    failure = ProviderFailure("provider_protocol", reason, 200, may_retry=True)
    return BatchCallError(failure, may_have_arrived=True)


class BatchHttp:
    """Sends requests to providers. All threads may share it."""

    def __init__(self, connect_timeout: float) -> None:
        self._timeout = httpx.Timeout(_TIMEOUT, connect=connect_timeout)
        self._context = httpx.create_ssl_context()
        self._clients: dict[str | None, httpx.Client] = {}

    def call(self, api: ProviderApi, method: str, url: str, headers: Headers, body: bytes | None = None) -> BatchReply:
        """Send a request, and return the response. Raises BatchCallError if it fails or has an error status.

        ``api`` reads the errors.
        """
        return self._whole(api, method, url, headers, body)

    def send(self, api: ProviderApi, url: str, headers: Headers, pieces: Iterable[bytes], length: int) -> BatchReply:
        """Post a long body piece by piece; ``length`` is its number of bytes. Otherwise as :meth:`call`."""
        return self._whole(api, "POST", url, [*headers, ("content-length", str(length))], pieces)

    @contextlib.contextmanager
    def lines(self, api: ProviderApi, url: str, headers: Headers) -> Iterator[Iterator[bytes]]:
        """Get a file, and iterate its lines as they arrive, without blank ones. Raises BatchCallError, also meanwhile.

        A redirect is followed; to another origin without the headers, which hold the key.
        """
        with _told(is_sending=False), contextlib.ExitStack() as stack:
            for _ in range(_MOST_REDIRECTS):
                response = stack.enter_context(self._stream("GET", url, headers, None))
                if not response.has_redirect_location:
                    break
                target = urljoin(url, response.headers["location"])
                headers = headers if _origin(target) == _origin(url) else []
                url = target
            else:
                raise unexpected(f"the provider redirects more than {_MOST_REDIRECTS} times")
            _check(api, response)
            yield _lines_of(response)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    def _whole(self, api: ProviderApi, method: str, url: str, headers: Headers, content: Any) -> BatchReply:
        with _told(is_sending=method == "POST"), self._stream(method, url, headers, content) as response:
            _check(api, response)
            body = _bounded(response, _LONGEST_BODY)
            if len(body) >= _LONGEST_BODY:
                raise unexpected(f"the response has more than {_LONGEST_BODY} bytes")
            return BatchReply(_headers_of(response), body)

    def _stream(
        self, method: str, url: str, headers: Headers, content: Any
    ) -> contextlib.AbstractContextManager[httpx.Response]:
        return self._client(url).stream(method, url, headers=headers, content=content)

    def _client(self, url: str) -> httpx.Client:
        parts = urlsplit(url)
        try:
            proxy = proxy_of(parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
        except ValueError as error:
            raise BatchCallError(ProviderFailure("invalid_request", str(error))) from None
        client = self._clients.get(proxy)
        if client is None:
            # With trust_env, httpx would also use proxies that do not apply, and .netrc.
            client = self._clients[proxy] = httpx.Client(
                verify=self._context,
                proxy=proxy,
                trust_env=False,
                timeout=self._timeout,
                headers={"User-Agent": f"headrace/{VERSION}"},
                follow_redirects=False,  # a key must not follow
            )
        return client


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)


def file_pieces(path: Path) -> Iterator[bytes]:
    """Iterate a file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


@contextlib.contextmanager
def _told(*, is_sending: bool) -> Iterator[None]:
    """Raise BatchCallError for what httpx raises. Its texts may quote the response: they are not used."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol):
        raise BatchCallError(
            ProviderFailure("provider_unavailable", "no connection to the provider", may_retry=True)
        ) from None
    except httpx.HTTPError as error:
        reason = f"the connection to the provider failed: {type(error).__name__}"
        failure = ProviderFailure("provider_unavailable", reason, may_retry=True)
        raise BatchCallError(failure, may_have_arrived=is_sending) from None


def _check(api: ProviderApi, response: httpx.Response) -> None:
    status = response.status_code
    if httpx.codes.is_success(status):
        return
    body = _bounded(response, _LONGEST_ERROR)
    failure = api.read_error(status, _headers_of(response), body)
    arrived = httpx.codes.is_server_error(status) or status == httpx.codes.REQUEST_TIMEOUT
    raise BatchCallError(failure, may_have_arrived=arrived)


def _headers_of(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _bounded(response: httpx.Response, most: int) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) >= most:
            return bytes(body[:most])
    return bytes(body)


def _lines_of(response: httpx.Response) -> Iterator[bytes]:
    held = bytearray()
    for piece in response.iter_bytes(_PIECE):
        held += piece
        *whole, rest = held.split(b"\n")
        for line in whole:
            if line.strip():
                yield bytes(line)
        held = bytearray(rest)
        if len(held) > _LONGEST_LINE:
            raise unexpected(f"a line of the results has more than {_LONGEST_LINE} bytes")
    if held.strip():
        yield bytes(held)
