"""What a model's configuration on a Triton server says of each version's detector, as parameters by name.

`export.serving` writes them, a client reads them: so it needs no file of its own, and knows what answers it.
"""

SCHEMA_KEY, SCHEMA = "cflow_schema", "cflow-edge/serving/1"
CHECKS_ENGINE = "checks_engine"  # a request may name the engine that it is for (`ENGINE`), and another one refuses it
ENGINE = "engine_sha256"  # a parameter of a request


def sidecar_key(version: str) -> str:
    """Return the parameter that holds the whole sidecar of a version, the very text of its file."""
    return f"sidecar_{version}"


def sidecar_sha256_key(version: str) -> str:
    """Return the parameter that holds the SHA-256 of that text as UTF-8."""
    return f"sidecar_sha256_{version}"


def engine_sha256_key(version: str) -> str:
    """Return the parameter that holds the SHA-256 of a version's engine file."""
    return f"engine_sha256_{version}"
