"""The page's addresses in one table: it routes requests, reads their parameters, and describes itself (OpenAPI)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from runtime.recipes.message import LONGEST
from runtime.records.marks import CORRECTS, LONGEST_REASON, LONGEST_WHO
from runtime.shadow.word import ANYWAY
from runtime.triggers.trigger import PART

LARGEST = 2**53 - 1  # the largest whole number that every JSON reader keeps exactly
JSON, TEXT, HTML, JPEG = "application/json", "text/plain", "text/html", "image/jpeg"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Whole:
    """A parameter: a whole number from 0 to `most`; in the path, or in the query, where it is 0 if left out."""

    name: str
    about: str
    most: int = LARGEST
    in_path: bool = False

    def read(self, request: web.Request) -> int:
        """Return its value. Raises 404 for another thing in the path, 400 in the query."""
        given = [request.match_info[self.name]] if self.in_path else request.query.getall(self.name, ["0"])
        text = given[0]
        plain = len(given) == 1 and text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST))
        if plain and int(text) <= self.most:
            return int(text)
        if self.in_path:
            raise web.HTTPNotFound(text="no such picture")
        raise web.HTTPBadRequest(text=f"{self.name} must be one whole number from 0 to {self.most}")

    def described(self) -> dict[str, Any]:
        """Return it as OpenAPI has it."""
        schema = {"type": "integer", "minimum": 0, "maximum": self.most}
        where = "path" if self.in_path else "query"
        return {"name": self.name, "in": where, "required": self.in_path, "description": self.about, "schema": schema}


@dataclass(frozen=True)
class Operation:
    """What one method of one address does; `handler` is a method of `Handlers`, `answers` has its type by status."""

    method: str
    path: str
    handler: str
    about: str
    answers: Mapping[int, str]
    parameters: tuple[Whole, ...] = ()
    body: str = ""  # its type
    public: bool = False  # needs no token
    header: bool = False  # an action: needs X-Requested-By

    def numbers(self, request: web.Request) -> dict[str, int]:
        """Return the request's parameters by name; raises as `Whole.read`."""
        return {parameter.name: parameter.read(request) for parameter in self.parameters}


CLOSED = {"additionalProperties": False}
TOKEN_FORM = {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]} | CLOSED
SOURCE = Whole("source", "the place of the source in source_names of /api/state", in_path=True)
ANOMALY = Whole("picture", "the number of an anomaly in /api/state", in_path=True)
CROP = Whole("crop", "the place of a crop in the anomaly's closer.crops, from 1 up", in_path=True)
DIFFER = Whole("picture", "the number of a disagreement in /api/state", in_path=True)
AFTER = Whole("after", "a picture with a number above this is wanted, and waited for")
SINCE = Whole("since", "points with a number above this are wanted")
MINUTES = Whole("minutes", "1: with the last 24 hours by minute", most=1)
WAIT = Whole("wait", "1: the answer is the verdict, which comes at the deadline at the latest", most=1)

OPERATIONS = (
    Operation("GET", "/", "page", "the page", {200: HTML}),
    Operation("GET", "/page.css", "page", "its style", {200: "text/css"}, public=True),
    Operation("GET", "/page.js", "page", "its program", {200: "text/javascript"}),
    Operation("GET", "/favicon.ico", "nothing", "no picture", {204: ""}, public=True),
    Operation("GET", "/openapi.json", "description", "this description", {200: JSON}),
    Operation("GET", "/login", "login_form", "asks for the token", {200: HTML, 303: TEXT}, public=True),
    Operation("POST", "/login", "login", "signs a browser in", {303: "", 401: HTML}, body=FORM, public=True),
    Operation("POST", "/logout", "logout", "signs a browser out", {204: ""}, header=True),
    Operation("GET", "/api/state", "state", "all that the page shows", {200: JSON}, (SINCE, MINUTES)),
    Operation("GET", "/api/audit", "audit", "the last changes in the inspection log", {200: JSON}),
    Operation(
        "POST",
        "/api/threshold",
        "threshold",
        "writes another threshold to the sidecar and judges by it",
        {200: JSON, 409: JSON, 422: JSON, 507: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "POST",
        "/api/recipe",
        "recipe",
        "judges by another recipe from the next frame, or the next trigger, on",
        {200: JSON, 404: JSON, 422: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "POST",
        "/api/trigger",
        "trigger",
        "asks for the verdict of a part, with --trigger http",
        {200: JSON, 202: JSON, 404: JSON, 409: JSON, 429: JSON, 503: JSON},
        (WAIT,),
        body=JSON,
        header=True,
    ),
    Operation("GET", "/api/marks", "marks", "the last verdicts that people corrected", {200: JSON}),
    Operation(
        "POST",
        "/api/mark",
        "mark",
        "marks a judgement that the page shows as a false alarm or a miss, in the inspection log",
        {200: JSON, 404: JSON, 409: JSON, 507: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "POST",
        "/api/withdraw",
        "withdraw",
        "undoes the mark of a judgement of the inspection log; both stay on record",
        {200: JSON, 404: JSON, 409: JSON, 507: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "POST",
        "/api/promote",
        "promote",
        "lets the candidate of --shadow judge from the next frame, or the next trigger, on",
        {200: JSON, 404: JSON, 409: JSON, 422: JSON, 507: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "POST",
        "/api/rollback",
        "rollback",
        "lets the engine that judged before the last promotion judge again",
        {200: JSON, 404: JSON, 409: JSON, 422: JSON, 507: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "POST",
        "/api/drift",
        "drift",
        "acknowledges a drift alarm; with new_normal, later frames are held against those of now",
        {200: JSON, 404: JSON},
        body=JSON,
        header=True,
    ),
    Operation(
        "GET", "/live/{source}.jpg", "live", "the newest picture; 204: none came", {200: JPEG, 204: ""}, (SOURCE, AFTER)
    ),
    Operation("GET", "/anomalies/{picture}.jpg", "anomaly", "one of the last anomalies", {200: JPEG}, (ANOMALY,)),
    Operation(
        "GET",
        "/anomalies/{picture}/{crop}.jpg",
        "crop",
        "a piece of one of the last anomalies' large frames, at the frame's own resolution",
        {200: JPEG},
        (ANOMALY, CROP),
    ),
    Operation("GET", "/shadow/{picture}.jpg", "disagreement", "one of the last disagreements", {200: JPEG}, (DIFFER,)),
    Operation("GET", "/metrics", "metrics", "for Prometheus", {200: TEXT}),
    Operation(
        "GET", "/health", "health", "whether frames are judged, for a watchdog", {200: JSON, 503: JSON}, public=True
    ),
)
PUBLIC = frozenset(operation.path for operation in OPERATIONS if operation.public)
ALWAYS = {400: "not to be read", 401: "no token", 404: "not there", 421: "another Host", 503: "no inspection answers"}
ACTION = {403: "from another site's page", 408: "too slow", 413: "too large"}
ASKED_BY = "X-Requested-By"  # no page of another site can send it: the browser would ask us first, and gets no answer
OUR_PAGE = "cflow-edge"


def threshold_schema(highest: float) -> dict[str, Any]:
    """Return what a body that sets a threshold is, in JSON Schema."""
    number = {"type": "number"}
    return {
        "type": "object",
        "properties": {
            "value": {**number, "minimum": 0, "exclusiveMaximum": highest},
            "instead_of": number,
            "recipe": {"type": "string", "description": "the one in force; left out: whichever is"},
        },
        "required": ["value", "instead_of"],
        "additionalProperties": False,
    }


def recipe_schema() -> dict[str, Any]:
    """Return what a body that asks for a recipe is, in JSON Schema."""
    name = {"type": "string", "minLength": 1, "maxLength": LONGEST}
    return {"type": "object", "properties": {"recipe": name}, "required": ["recipe"], "additionalProperties": False}


def promotion_schema() -> dict[str, Any]:
    """Return what a body that promotes the engine in shadow, or takes it back, is, in JSON Schema."""
    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "candidate_sha256 of /api/state"}
    word = {"enum": [ANYWAY], "description": "in spite of what speaks against it; it is on record"}
    who = {"type": "string", "maxLength": LONGEST_WHO, "description": "who says so"}
    known = {"candidate": digest, "override": word, "name": who}
    return {"type": "object", "properties": known, "required": ["candidate"]} | CLOSED


def mark_schema(of: str, about: str, **more: Any) -> dict[str, Any]:
    """Return what a body that marks `of`, or undoes a mark, is, in JSON Schema."""
    number = {"type": "integer", "minimum": 0, "maximum": LARGEST, "description": about}
    who = {"type": "string", "maxLength": LONGEST_WHO, "description": "who says so"}
    said = {"reason": {"type": "string", "maxLength": LONGEST_REASON}, "name": who}
    return {"type": "object", "properties": {of: number, **more, **said}, "required": [of, *more]} | CLOSED


def drift_schema() -> dict[str, Any]:
    """Return what a body that acknowledges a drift alarm is, in JSON Schema."""
    number = {"type": "integer", "minimum": 0, "maximum": LARGEST, "description": "its number in /api/state"}
    renew = {"type": "boolean", "description": "true: what is now is the new normal; false: the alarm stands"}
    name = {"type": "string", "maxLength": LONGEST_WHO, "description": "who says so"}
    fields = {"alarm": number, "new_normal": renew, "name": name}
    return {"type": "object", "properties": fields, "required": ["alarm", "new_normal"]} | CLOSED


def trigger_schema() -> dict[str, Any]:
    """Return what a body that asks for the verdict of a part is, in JSON Schema."""
    part = {"type": "string", "pattern": f"^{PART}$", "description": "left out: it is counted"}
    source = {"type": "string", "description": "the one source that is asked; left out: each of them"}
    return {"type": "object", "properties": {"part": part, "source": source}, "additionalProperties": False}


def described(operation: Operation, open_to_all: bool, highest: float) -> dict[str, Any]:
    """Return an operation as OpenAPI has it; `open_to_all`: this page takes no token."""
    refusals = {**ALWAYS, **(ACTION if operation.method == "POST" else {})}
    answers: dict[str, Any] = {
        str(status): {"description": text, "content": {TEXT: {}}} for status, text in refusals.items()
    }
    for status, kind in operation.answers.items():
        content = {} if not kind else {"content": {kind: {"schema": {"type": "object"}} if kind == JSON else {}}}
        answers[str(status)] = {"description": "as asked" if status < 300 else "see about", **content}
    parameters = [parameter.described() for parameter in operation.parameters]
    if operation.header:
        schema = {"type": "string", **({"enum": [OUR_PAGE]} if open_to_all else {})}
        about = f"{OUR_PAGE}; needed unless the request has the token as a bearer"
        header = {"name": ASKED_BY, "in": "header", "required": open_to_all, "description": about, "schema": schema}
        parameters.append(header)
    schemas = {
        "threshold": threshold_schema(highest),
        "recipe": recipe_schema(),
        "trigger": trigger_schema(),
        "mark": mark_schema("number", "a picture of /api/state", kind={"enum": list(CORRECTS)}),
        "promote": promotion_schema(),
        "rollback": promotion_schema(),
        "withdraw": mark_schema("judgement", "its number in the inspection log"),
        "drift": drift_schema(),
        "login": TOKEN_FORM,
    }
    body = {operation.body: {"schema": schemas[operation.handler]}} if operation.body else {}
    return {
        "operationId": f"{operation.method.lower()} {operation.path}",
        "summary": operation.about,
        "security": [] if operation.public or open_to_all else [{"token": []}, {"cookie": []}],
        "parameters": parameters,
        **({"requestBody": {"required": True, "content": body}} if body else {}),
        "responses": answers,
    }


def openapi(cookie: str, open_to_all: bool, highest: float) -> dict[str, Any]:
    """Return the description of every address; `cookie` is the session's, `highest` the engine's largest threshold."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = described(operation, open_to_all, highest)
    schemes = {
        "token": {"type": "http", "scheme": "bearer"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inspection", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {} if open_to_all else schemes},
    }
