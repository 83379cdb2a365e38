"""Stories out of web pages, and pages out of the web, within limits."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from themewire.errors import missing_extra

PAGE_LIMIT = 2**23
"""Bytes of a page that are read; a larger one is refused."""
TIMEOUT = 20.0
"""Seconds to wait for the next bytes of an answer."""
TOTAL_TIMEOUT = 60.0
"""Seconds a whole page may take."""
REDIRECTS = 5
AGENT = "themewire (news tagging; one page at a person's request)"
DEPTH_LIMIT = 1_000
"""Elements inside each other; deeper markup is no news page, and parsers slow down on it."""


class WebError(Exception):
    """A page that cannot be had, or holds no story; the message says why."""


def is_address(given: str) -> bool:
    """Whether an input is an address rather than a file: anything with a scheme."""
    return "://" in given


def page_story(raw: bytes) -> tuple[str, str]:
    """Title and text of the story on an HTML page.

    Raises:
        WebError: too large, too deeply nested, or no story found.
        UsageError: the extra `formats` is not installed.
    """
    if len(raw) > PAGE_LIMIT:
        raise WebError(f"more than {PAGE_LIMIT >> 20} MiB of markup")
    try:
        import trafilatura
    except ImportError as error:
        raise missing_extra("formats", error) from error
    if _depth(raw) > DEPTH_LIMIT:
        raise WebError(f"elements nested more than {DEPTH_LIMIT} deep")
    try:
        found = trafilatura.bare_extraction(
            raw, with_metadata=True, include_comments=False, include_tables=False
        )
    except (ValueError, RecursionError, AttributeError) as error:
        raise WebError(f"cannot be read: {error}") from error
    text = str(getattr(found, "text", None) or "")
    if not text.strip():
        raise WebError("no story found on it")
    title = str(getattr(found, "title", None) or "")
    # the headline often opens the body as well; it is one sentence, not two
    return title, text.removeprefix(title).lstrip() if title else text


def _depth(raw: bytes) -> int:
    """How deep the markup is nested at most, told cheaply: tags opened less tags closed."""
    deepest = depth = 0
    for piece in raw.split(b"<")[1:]:
        if piece.startswith(b"/"):
            depth = max(0, depth - 1)
        elif piece[:1].isalpha() and not piece.split(b">")[0].endswith(b"/"):
            name = piece.split(b">", 1)[0].split(None, 1)[0].lower()
            if name not in VOID:
                depth += 1
                deepest = max(deepest, depth)
    return deepest


VOID = frozenset(
    {b"area", b"base", b"br", b"col", b"embed", b"hr", b"img", b"input", b"li", b"link", b"meta", b"p",
     b"param", b"source", b"track", b"wbr", b"td", b"tr", b"th", b"dd", b"dt", b"option"}
)  # fmt: skip
"""Elements that are closed by none, or need not be."""


def fetch(address: str, allow_private: bool = False) -> tuple[bytes, str]:
    """A page's bytes and its media type.

    Only `http` and `https`; the machine an address leads to is checked each time one is connected to, so
    a redirect or a name that resolves anew leads nowhere else.

    Raises:
        WebError: refused, unreachable, too slow, too large, or of a kind that holds no story.
    """
    scheme = urlsplit(address).scheme.lower()
    if scheme not in ("http", "https"):
        raise WebError(f"{scheme}: only http and https are fetched")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Plain(allow_private),
        _Secure(allow_private),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(address, headers={"User-Agent": AGENT})  # noqa: S310 - checked above
    end = time.monotonic() + TOTAL_TIMEOUT
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
            if kind not in ("text/html", "application/xhtml+xml", "text/plain"):
                raise WebError(f"holds {kind}, no page")
            return _body(answer, end), kind
    except urllib.error.HTTPError as error:
        raise WebError(f"answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise WebError(str(error.reason)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WebError(str(error) or type(error).__name__) from error


def _body(answer: Any, end: float) -> bytes:
    raw = bytearray()
    while piece := answer.read1(2**16):
        raw += piece
        if len(raw) > PAGE_LIMIT:
            raise WebError(f"more than {PAGE_LIMIT >> 20} MiB")
        if time.monotonic() > end:
            raise WebError(f"took more than {TOTAL_TIMEOUT:.0f} seconds")
    return bytes(raw)


def checked_connection(
    where: tuple[str, int], timeout: Any, source: Any, allow_private: bool
) -> socket.socket:
    """A connection to the first address of a host, refused where one of them is not public."""
    host, port = where
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        ip = ipaddress.ip_address(str(place[0]).split("%")[0])
        if not allow_private and (not ip.is_global or ip.is_multicast):
            raise OSError(f"{host} is {ip}, in a private network; --allow-private lets it be")
    return socket.create_connection((str(found[0][4][0]), port), timeout, source)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = REDIRECTS
    max_repeats = 2


def _checked(base: Any, allow_private: bool) -> Callable[..., Any]:
    """Makes connections of a kind that look at where they lead."""

    def make(*args: Any, **kwargs: Any) -> Any:
        connection = base(*args, **kwargs)
        # the one place where http.client lets its way of connecting be replaced
        connection._create_connection = lambda where, timeout, source: checked_connection(
            where, timeout, source, allow_private
        )
        return connection

    return make


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self.make = _checked(http.client.HTTPConnection, allow_private)

    def http_open(self, req: Any) -> Any:
        return self.do_open(self.make, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self.make = _checked(http.client.HTTPSConnection, allow_private)

    def https_open(self, req: Any) -> Any:
        return self.do_open(self.make, req)
