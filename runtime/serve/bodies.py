"""The bodies that actions have, read with a bound and checked."""

import asyncio
import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from runtime.common.errors import UserError
from runtime.recipes.message import recipe_from_object
from runtime.records.marks import CORRECTS, LONGEST_REASON, LONGEST_WHO
from runtime.serve.api import FORM, LARGEST
from runtime.shadow.word import ANYWAY
from runtime.triggers.message import from_object

SEND = 'send {"value": X, "instead_of": the present threshold}'
SEND_RECIPE = 'send {"recipe": "its name"}'
SEND_PART = 'send {"part": "SN123"}'
SEND_MARK = 'send {"number": N, "kind": "false_alarm" or "missed", "reason": "optional", "name": "optional"}'
SEND_WITHDRAWAL = 'send {"judgement": N, "reason": "optional", "name": "optional"}'
SEND_PROMOTION = 'send {"candidate": its SHA-256, "override": "anyway" or left out, "name": "optional"}'
SEND_DRIFT = 'send {"alarm": N, "new_normal": true or false, "name": "optional"}'
MOST_FIELDS = 8
Found = TypeVar("Found")


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


async def _read(
    request: web.Request, within_s: float, cure: str, read: Callable[[Any], Found], **options: Any
) -> Found:
    """Return what `read` makes of a body of JSON. Raises 400 with `cure` where it raises `ValueError`, or it is none.

    `options` are `json.loads`' own.
    """
    text = await _text(request, within_s)
    try:
        return read(json.loads(text, **options))
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text=cure) from None


async def read_threshold(request: web.Request, within_s: float) -> tuple[float, float, str | None]:
    """Return (value, instead_of, recipe), None for whatever recipe. Raises 400 for what are no two numbers."""
    # int as float: a whole number may have thousands of digits
    numbers = {"parse_int": float, "parse_constant": _no_number}
    return await _read(request, within_s, SEND, _threshold, **numbers)


def _threshold(asked: Any) -> tuple[float, float, str | None]:
    if not isinstance(asked, dict) or asked.keys() - {"recipe"} != {"value", "instead_of"}:
        raise ValueError(SEND)
    value, instead_of, recipe = asked["value"], asked["instead_of"], asked.get("recipe")
    if "recipe" in asked and not isinstance(recipe, str):
        raise ValueError(SEND)
    if not all(isinstance(number, float) and math.isfinite(number) for number in (value, instead_of)):
        raise ValueError(SEND)
    return value, instead_of, recipe


async def read_recipe(request: web.Request, within_s: float) -> str:
    """Return the name of the recipe that is asked for. Raises 400 for what is none."""
    return await _read(request, within_s, SEND_RECIPE, recipe_from_object)


async def read_mark(request: web.Request, within_s: float) -> tuple[int, str, str, str]:
    """Return (number, kind, reason, name), the last two empty where left out. Raises 400 for what is no mark."""
    return await _read(request, within_s, SEND_MARK, _mark)


def _mark(asked: Any) -> tuple[int, str, str, str]:
    number, reason, name = _said(asked, "number", {"kind"})
    if asked["kind"] not in tuple(CORRECTS):
        raise ValueError(SEND_MARK)
    return number, asked["kind"], reason, name


async def read_withdrawal(request: web.Request, within_s: float) -> tuple[int, str, str]:
    """Return (judgement, reason, name), the last two empty where left out. Raises 400 for what undoes no mark."""
    return await _read(request, within_s, SEND_WITHDRAWAL, lambda asked: _said(asked, "judgement", set()))


async def read_promotion(request: web.Request, within_s: float) -> tuple[str, str, str]:
    """Return (candidate, override, name), the last two empty where left out. Raises 400 for what asks for no engine."""
    return await _read(request, within_s, SEND_PROMOTION, _promotion)


def _promotion(asked: Any) -> tuple[str, str, str]:
    if not isinstance(asked, dict) or asked.keys() - {"override", "name"} != {"candidate"}:
        raise ValueError(SEND_PROMOTION)
    candidate, name = asked["candidate"], asked.get("name", "")
    texts = isinstance(candidate, str) and isinstance(name, str) and len(name) <= LONGEST_WHO
    if not texts or not re.fullmatch("[0-9a-f]{64}", candidate) or asked.get("override", ANYWAY) != ANYWAY:
        raise ValueError(SEND_PROMOTION)
    return candidate, asked.get("override", ""), name


async def read_drift(request: web.Request, within_s: float) -> tuple[int, bool, str]:
    """Return (alarm, whether what is now is the new normal, name). Raises 400 for what acknowledges no alarm."""
    return await _read(request, within_s, SEND_DRIFT, _drift)


def _drift(asked: Any) -> tuple[int, bool, str]:
    alarm, reason, name = _said(asked, "alarm", {"new_normal"})
    if reason or type(asked["new_normal"]) is not bool:
        raise ValueError(SEND_DRIFT)
    return alarm, asked["new_normal"], name


def _said(asked: object, of: str, more: set[str]) -> tuple[int, str, str]:
    """Return which number is meant, reason and name. Raises `ValueError` for another thing or what is too long."""
    if not isinstance(asked, dict) or asked.keys() - {"reason", "name"} != {of} | more:
        raise ValueError(of)
    number, reason, name = asked[of], asked.get("reason", ""), asked.get("name", "")
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if type(number) is not int or not 0 <= number <= LARGEST:
        raise ValueError(of)
    for text, longest in ((reason, LONGEST_REASON), (name, LONGEST_WHO)):
        if not isinstance(text, str) or len(text) > longest:
            raise ValueError(of)
    return number, reason, name


async def read_trigger(request: web.Request, within_s: float) -> tuple[str, str]:
    """Return (part, source), each empty where it is left out. Raises 400 for what is no trigger."""
    try:
        return await _read(request, within_s, SEND_PART, from_object)
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
