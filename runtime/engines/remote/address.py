"""Where an engine is: a file, or a model of a server, grpc://HOST:8001/cable or http://HOST:8000/cable."""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

from runtime.common.errors import UserError

SCHEMES = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}  # and the port where none is said
_ADDRESS = re.compile(
    r"(?P<scheme>\w+)://(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?(?P<host>\[[^\]/]+\]|[^:@/\[\]]+)(?::(?P<port>\d+))?/"
    r"(?P<base>[^?#@]*/)?(?P<model>[A-Za-z0-9_.-]+)"
)
_VERSIONED = re.compile(r"(?P<base>.*/)?(?P<model>[A-Za-z0-9_.-]*[A-Za-z_.-][A-Za-z0-9_.-]*)/(?P<version>\d+)")
EXAMPLE = "grpc://HOST:8001/cable or http://HOST:8000/cable, with /2 behind it for version 2"


@dataclass(frozen=True)
class RemoteEngine:
    """A model of a server that speaks KServe's protocol, version 2; `version` is empty where the newest is meant.

    `base` is what stands before the protocol's own path on an HTTP server, as a proxy may want it.
    """

    scheme: str
    host: str
    port: int
    model: str
    version: str = ""
    base: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> "RemoteEngine":
        """Return the model that an address names. Raises `UserError`, without any password, for no such address."""
        found = _ADDRESS.fullmatch(text)
        scheme = text.partition("://")[0]
        if found is None or scheme not in SCHEMES or not 0 < int(found["port"] or SCHEMES[scheme]) < 65536:
            raise UserError("an engine on a server must be an address with a model's name", f"{scheme}://...", EXAMPLE)
        path, version = (found["base"] or "") + found["model"], ""
        if versioned := _VERSIONED.fullmatch(path):
            path, version = (versioned["base"] or "") + versioned["model"], versioned["version"]
        base, _, model = path.rpartition("/")
        if base and scheme.startswith("grpc"):
            raise UserError("a model behind grpc:// must stand right after the host", f"/{base}/{model}", EXAMPLE)
        user, password = (unquote(found[part] or "") for part in ("user", "password"))
        port = int(found["port"] or SCHEMES[scheme])
        return cls(scheme, found["host"], port, model, version, base, user, password)

    @property
    def name(self) -> str:
        """The address as it may be shown: without user and password."""
        base = f"{self.base}/" if self.base else ""
        version = f"/{self.version}" if self.version else ""
        return f"{self.scheme}://{self.host}:{self.port}/{base}{self.model}{version}"

    def __str__(self) -> str:
        return self.name

    @property
    def secure(self) -> bool:
        """Whether it is spoken to through TLS."""
        return self.scheme in ("grpcs", "https")

    @property
    def target(self) -> str:
        """The server as tritonclient wants it named."""
        return f"{self.host}:{self.port}" + (f"/{self.base}" if self.base else "")

    def resolve(self) -> "RemoteEngine":
        """Return what tells it from other engines, as `Path.resolve` does of a file: itself."""
        return self


EngineAt: TypeAlias = Path | RemoteEngine


def is_address(text: str) -> bool:
    """Return whether `text` names a model of a server, and no file."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def engine_at(text: "str | EngineAt") -> EngineAt:
    """Return where an engine is, for an argument. Raises `UserError` for an address without a model."""
    if isinstance(text, RemoteEngine):
        return text
    return RemoteEngine.parse(str(text)) if isinstance(text, str) and is_address(text) else Path(text)


def engine(text: str) -> EngineAt:
    """Return where an engine is, for a word of a command line."""
    try:
        return engine_at(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def there(place: EngineAt) -> bool:
    """Return whether an engine's file is there; whether a server is, only asking it could tell."""
    return isinstance(place, RemoteEngine) or place.is_file()
