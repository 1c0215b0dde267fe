"""What a server serves under a model's name, held against the engine contract before anything it says is believed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from runtime.common.errors import UserError
from runtime.engines.cpu_session import MAX_BATCH
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.client import Client, Fault, Json, NotOffered
from runtime.engines.remote.parameters import (
    CHECKS_ENGINE,
    SCHEMA,
    SCHEMA_KEY,
    engine_sha256_key,
    sidecar_key,
    sidecar_sha256_key,
)
from runtime.engines.sidecar import (
    INPUT_NAME,
    LARGEST_BYTES,
    MAP_NAME,
    SCORE_NAME,
    Artefact,
    Sidecar,
    read_hashed_sidecar,
)

Shape = tuple[int, ...]
FREE = -1  # a side of any length, as the protocol has it


@dataclass(frozen=True)
class Served:
    """A version of a model that keeps the contract.

    `engine` and `sidecar_sha256` are hashes; empty is the engine's where the server does not say which file it runs,
    and then `artefact` is None. `batches` are the fewest and the most frames of one request. `checks` says that the
    server refuses a request for another engine.
    """

    version: str
    sidecar: Sidecar
    sidecar_sha256: str
    engine: str
    artefact: Artefact | None
    batches: tuple[int, int]
    checks: bool

    @property
    def identity(self) -> tuple[str, str, str, tuple[int, int]]:
        """What stays the same while a line runs."""
        return self.version, self.sidecar_sha256, self.engine, self.batches


def served(client: Client, engine: RemoteEngine, version: str, local: "Path | Served | None") -> Served:
    """Ask the server of `client` what it serves as `version` of the model (empty: the newest).

    `local` is a sidecar's file, or a folder of them; or what was served before, with the sidecar of that. Raises
    `Fault` where there is no answer and `UserError` where the answer is no engine of the contract.
    """
    try:
        return _served(client, engine, version, local)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{engine} must describe its model as the protocol has it", found, "look at the server"
        ) from None


def _served(client: Client, engine: RemoteEngine, version: str, local: Path | Served | None) -> Served:
    metadata = client.metadata(version)
    version = version or _newest(metadata)
    if not client.ready(version):
        raise Fault(f"{engine.model} version {version or 'newest'} is not ready")
    try:
        config = client.config(version)
    except NotOffered:
        config = {}
    parameters = _parameters(config)
    digest = parameters.get(engine_sha256_key(version), "") if parameters.get(SCHEMA_KEY) == SCHEMA else ""
    if isinstance(local, Served):
        whole, sidecar_sha256 = local.sidecar, local.sidecar_sha256
    elif local is not None:
        whole, sidecar_sha256 = read_hashed_sidecar(_file(local, engine))
    else:
        whole, sidecar_sha256 = _fetched(parameters, version, engine)
    sidecar, artefact = _of(whole, digest, engine)
    batches = _batches(config, _signature(metadata, engine, sidecar), engine)
    checks = parameters.get(CHECKS_ENGINE) == "yes" and bool(digest)
    return Served(version, sidecar, sidecar_sha256, digest, artefact, batches, checks)


def _newest(metadata: Json) -> str:
    versions = [str(version) for version in metadata.get("versions") or () if str(version).isdigit()]
    return max(versions, key=int, default="")


def _parameters(config: Json) -> dict[str, str]:
    """Return the parameters that are texts, by name."""
    found = config.get("parameters")
    if not isinstance(found, dict):
        return {}
    return {key: str(value.get("string_value", "")) for key, value in found.items() if isinstance(value, dict)}


def _file(local: Path, engine: RemoteEngine) -> Path:
    """Return the sidecar's file for a model; a folder holds one for each."""
    path = local / f"{engine.model}.json" if local.is_dir() else local
    if not path.is_file():
        raise UserError(f"--sidecar must name the sidecar of {engine.model}", f"no file {path}", "copy it there")
    return path.with_suffix(".onnx")  # the engine that it would stand beside


def _fetched(parameters: dict[str, str], version: str, engine: RemoteEngine) -> tuple[Sidecar, str]:
    """Return the sidecar that the server keeps for a version, and its SHA-256, which must be that of the text."""
    text = parameters.get(sidecar_key(version), "")
    if parameters.get(SCHEMA_KEY) != SCHEMA or not text:
        cure = "write the model with cflow triton, or give its sidecar with --sidecar"
        raise UserError(f"{engine} must have a sidecar for version {version or 'newest'}", "none on the server", cure)
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    if len(data) > LARGEST_BYTES or digest != parameters.get(sidecar_sha256_key(version)):
        raise UserError(f"the sidecar of {engine} must be as it was written", "another text", "write the model again")
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the sidecar of {engine} must be JSON", str(error), "write the model again") from None
    return Sidecar.from_json(value, f"the sidecar of {engine}"), digest


def _of(whole: Sidecar, digest: str, engine: RemoteEngine) -> tuple[Sidecar, Artefact | None]:
    """Return the part of a sidecar that describes the engine with that hash, and its entry for it."""
    links = whole.links()
    if not digest:
        return links[0], None
    for link in reversed(links):
        for artefact in link.artefacts:
            if artefact.sha256 == digest:
                return link, artefact
    found = f"an engine with sha256 {digest[:12]}"
    raise UserError(f"{engine} must run an engine that its sidecar describes", found, "write the model again")


def _signature(metadata: Json, engine: RemoteEngine, sidecar: Sidecar) -> list[int]:
    """Return the batch of each tensor as the server has it. Raises `UserError` unless they are the contract's."""
    found = {}
    for way in ("inputs", "outputs"):
        for each in metadata.get(way) or ():
            shape = tuple(int(side) for side in each.get("shape") or ())
            found[str(each.get("name"))] = (way, str(each.get("datatype")), shape)
    expected = {
        INPUT_NAME: ("inputs", "UINT8", (*sidecar.engine_frame_size, 3)),
        MAP_NAME: ("outputs", "FP32", sidecar.input_size),
        SCORE_NAME: ("outputs", "FP32", ()),
    }
    batches = []
    for name, (way, kind, shape) in expected.items():
        has = found.pop(name, ("", "nothing", ()))
        fits = has[2][1:] in ((shape, (1,)) if name == SCORE_NAME else (shape,))
        if has[:2] != (way, kind) or not has[2] or not fits:
            wanted = f"{name} {kind}[B{''.join(f', {side}' for side in shape)}]"
            raise UserError(f"{engine} must have {wanted}, as its sidecar promises", f"{has[1]}{list(has[2])}")
        batches.append(has[2][0])
    if more := [name for name, (way, *_) in found.items() if way == "inputs"]:
        raise UserError(f"{engine} must have the input {INPUT_NAME} alone", ", ".join([INPUT_NAME, *more]))
    return batches


def _batches(config: Json, found: list[int], engine: RemoteEngine) -> tuple[int, int]:
    """Return the fewest and the most frames of a request."""
    fixed = {batch for batch in found if batch != FREE}
    if fixed:
        if len(fixed) > 1 or not 1 <= min(fixed) <= MAX_BATCH:
            raise UserError(f"{engine} must take one batch of 1 to {MAX_BATCH} frames", f"batches of {found}")
        return min(fixed), min(fixed)
    most = int(config.get("max_batch_size") or 0)
    return 1, min(most, MAX_BATCH) if most > 0 else MAX_BATCH
