"""Posts bodies to one sink's address, and reads at most 64 KiB of each answer, within the sink's timeout."""

from __future__ import annotations

import importlib.util
import logging
import os
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from headrace.settings.http_values import header_problem, url_problem
from headrace.settings.known_secrets import address_secrets, header_secrets, proxy_secrets
from headrace.settings.proxy_choice import proxy_of
from headrace.settings.settings import SinkConfig
from headrace.text.secret_mask import SecretMask
from headrace_engine.spans.sinks.answer_policy import Blocked, Retry, ServerAnswer
from headrace_engine.spans.sinks.sink import SinkUnusableError

MAX_BODY_BYTES = 64 * 1024
_SHORTEST_SECRET = 6  # a shorter header value is not secret, and masking it would remove words


class HttpPost:
    """Posts to one address. May be used by several threads."""

    def __init__(self, url: str, config: SinkConfig, environ: Mapping[str, str], content_type: str) -> None:
        """Raises SinkUnusableError."""
        import httpx  # imported here: it takes 0.1 s, and most engines have no sink

        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # they log addresses and headers, which may be secret
        self._httpx = httpx
        self._timeout = config.timeout
        self._url = _checked(url)
        headers = {**config.headers, **_bearer(config, environ)}
        _check_headers(headers)
        secrets = [secret for value in headers.values() for secret in (value, value.rpartition(" ")[2])]
        secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self.mask = SecretMask([*secrets, *header_secrets(headers), *address_secrets(url), *proxy_secrets(environ)])
        """Takes out the secrets that no message may quote."""
        # Ask for no compression: an answer could unpack to gigabytes.
        headers |= {"Content-Type": content_type, "Accept-Encoding": "identity", "User-Agent": "headrace"}
        # With trust_env, httpx would look at proxies that do not apply, and refuse networks in NO_PROXY.
        self._client = httpx.Client(
            headers=headers, timeout=config.timeout, trust_env=False, verify=_tls(), proxy=_proxy(self._url)
        )

    def send(self, body: bytes, headers: Mapping[str, str] = {}) -> ServerAnswer | Retry | Blocked:
        """Post ``body``. Return the answer, or a verdict if there is none."""
        httpx = self._httpx
        deadline = time.monotonic() + self._timeout
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                said = bytearray()
                for piece in response.iter_raw():
                    said += piece
                    if len(said) >= MAX_BODY_BYTES or time.monotonic() >= deadline:
                        break  # the status is known; leaving the block closes the connection
                return ServerAnswer(
                    response.status_code, response.headers.get("retry-after", ""), bytes(said[:MAX_BODY_BYTES])
                )
        except httpx.TimeoutException:
            return Retry(f"no answer within {self._timeout:g} s")
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL):
            # Do not quote the error: it quotes the wrong value, which may be a secret.
            return Blocked("the address or a header is not valid HTTP")
        except (UnicodeError, ValueError):
            return Blocked("the address has a host that cannot be looked up")
        except httpx.TransportError as error:
            return Retry(self.mask.masked(str(error)) or type(error).__name__)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _checked(url: str) -> str:
    if (problem := url_problem(url)) is not None:
        raise SinkUnusableError(f"url {problem}")
    return url


def _proxy(url: str) -> str | None:
    """Return the environment's proxy for an address, or None. Raises SinkUnusableError if the proxy cannot be used."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        proxy = proxy_of(parts.scheme, parts.hostname or "", port)
    except ValueError as error:
        raise SinkUnusableError(str(error)) from None
    if proxy is not None and proxy.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise SinkUnusableError(
            "the proxy of the environment is SOCKS, which needs a package: pip install 'httpx[socks]'"
        )
    return proxy


def _tls() -> ssl.SSLContext:
    """Return a TLS context with the certificates that the environment names. Raises SinkUnusableError."""
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        files = " and ".join(name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name))
        raise SinkUnusableError(f"the certificates cannot be read ({error.strerror or error}): mend {files}") from None


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if (problem := header_problem(name, value)) is not None:
            raise SinkUnusableError(problem)


def _bearer(config: SinkConfig, environ: Mapping[str, str]) -> dict[str, str]:
    if not config.api_key_env:
        return {}
    if not (key := environ.get(config.api_key_env)):
        raise SinkUnusableError(f"no key: set {config.api_key_env} where the engine starts")
    return {"Authorization": f"Bearer {key}"}
