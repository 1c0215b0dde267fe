"""The bodies that actions have, read with a bound and checked."""

import asyncio
import json
import math
from typing import NoReturn
from urllib.parse import parse_qsl

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from runtime.common.errors import UserError
from runtime.serve.api import FORM
from runtime.triggers.message import from_object

SEND = 'send {"value": X, "instead_of": the present threshold}'
SEND_PART = 'send {"part": "SN123"}'
MOST_FIELDS = 8


async def _text(request: web.Request, within_s: float) -> str:
    """Return the body. Raises 400 for one that is no UTF-8 or ends too early, 408 and 413 for a slow and a large one.

    What `Content-Type` says of the characters, and `Content-Encoding` of a compression, is not followed.
    """
    try:
        return (await asyncio.wait_for(request.read(), within_s)).decode("utf-8")
    except asyncio.TimeoutError:
        raise web.HTTPRequestTimeout(text="the request took too long") from None
    except (ValueError, ClientError, HttpProcessingError, ConnectionError):
        raise web.HTTPBadRequest(text="the body cannot be read") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


async def read_threshold(request: web.Request, within_s: float) -> tuple[float, float]:
    """Return (value, instead_of). Raises 400 for what are no two numbers."""
    text = await _text(request, within_s)
    try:
        # int as float: a whole number may have thousands of digits
        asked = json.loads(text, parse_int=float, parse_constant=_no_number)
        if not isinstance(asked, dict) or asked.keys() != {"value", "instead_of"}:
            raise ValueError(SEND)
        value, instead_of = asked["value"], asked["instead_of"]
        if not all(isinstance(number, float) and math.isfinite(number) for number in (value, instead_of)):
            raise ValueError(SEND)
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text=SEND) from None
    return value, instead_of


async def read_trigger(request: web.Request, within_s: float) -> tuple[str, str]:
    """Return (part, source), each empty where it is left out. Raises 400 for what is no trigger."""
    text = await _text(request, within_s)
    try:
        return from_object(json.loads(text))
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text=SEND_PART) from None
    except UserError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


async def read_token_field(request: web.Request, within_s: float) -> str:
    """Return what the login form has as its token; empty if it has none. Raises 400 for another kind of body."""
    if request.content_type != FORM:
        raise web.HTTPBadRequest(text=f"send the form as {FORM}")
    text = await _text(request, within_s)
    try:
        return dict(parse_qsl(text, max_num_fields=MOST_FIELDS)).get("token", "")
    except ValueError:
        raise web.HTTPBadRequest(text="the form has too many fields") from None
