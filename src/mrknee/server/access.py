"""Access by a token: in a header for programs, as a link and then a cookie for browsers.

Without a token, everyone who reaches the service can use it. The files of the page, `/health` and
`/ready` need no token: they contain nothing about exams.
"""

from __future__ import annotations

import hmac
import re
import secrets
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse

from mrknee.errors import RequestError, SettingsError
from mrknee.server.refusal import RefusalError
from mrknee.untrusted import read_text

PARAMETER = "token"
"""Name of the parameter of a link, `/?token=...`."""

_VALID = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
"""What an Authorization header can contain (RFC 6750), long enough not to be guessed."""

_FILE_BYTES = 10_000


class Access:
    """Checks the token of requests.

    Args:
        token: the token.
        root_path: path of the service behind a proxy, or "".
    """

    def __init__(self, token: str, root_path: str = "") -> None:
        self._token, self._root_path = token.encode(), root_path
        digest = hmac.new(self._token, b"cookie of a browser", "sha256").hexdigest()
        # cookies don't distinguish ports: each token has a cookie of its own
        self._cookie_name, self._cookie = f"mrknee-{digest[:8]}", digest[8:]

    def check(self, address: str, headers: Headers) -> None:
        """Refuses a request without the token.

        Args:
            address: path of the request.
            headers: its headers.

        Raises:
            RefusalError: the path needs the token, and neither header nor cookie contains it.
        """
        if address in ("/", "/health", "/ready") or address.startswith("/page/"):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie_name, "")
        by_header = scheme.lower() == "bearer" and self._is_token(given.strip())
        if not by_header and not hmac.compare_digest(_encoded(cookie), self._cookie.encode()):
            raise _refused()

    def sign_in(self, address: str, query: bytes) -> RedirectResponse | None:
        """Answers a link with the token: sets the cookie, and redirects to the page without it.

        Args:
            address: path of the request.
            query: its query.

        Returns:
            None if the request is not such a link.

        Raises:
            RefusalError: the token is wrong.
        """
        parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in parameters if name == PARAMETER]
        if address != "/" or not given:
            return None
        if not self._is_token(given[0]):
            raise _refused()
        rest = urlencode([(name, value) for name, value in parameters if name != PARAMETER])
        response = RedirectResponse("./" + ("?" + rest if rest else ""), 303)
        response.set_cookie(
            self._cookie_name,
            self._cookie,
            path=self._root_path + "/",
            httponly=True,
            samesite="strict",
        )
        return response

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(_encoded(given), self._token)


def new_token() -> str:
    """Returns a random token of 256 bits."""
    return secrets.token_urlsafe(32)


def read_token(file: Path) -> str:
    """Reads a token from a file of one line.

    Raises:
        MrkneeError: the file can't be read, or contains no valid token.
    """
    token = read_text(file, "token", at_most=_FILE_BYTES, kind=SettingsError).strip()
    if not _VALID.fullmatch(token):
        raise SettingsError(
            "the file contains no valid token",
            code="token",
            file=file,
            expected="one line of 16 to 512 letters, digits and . _ ~ + / = -",
            found=f"{len(token)} characters",
            advice="python -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE",
        )
    return token


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _refused() -> RefusalError:
    fault = RequestError(
        "the request lacks the token of the service",
        code="token",
        expected="the header Authorization: Bearer TOKEN, or the cookie that /?token=TOKEN sets",
        advice="open the link that mrknee serve printed, or ask whoever started it",
    )
    return RefusalError(401, fault, headers={"WWW-Authenticate": "Bearer"})
