"""Which version of the kit runs: the installed distribution's, which has it from pyproject.toml."""

DISTRIBUTION = "cflow-edge"


def installed_version() -> str:
    """Return the version of the installed distribution, as "0.1.0"; empty for a checkout that is not installed."""
    import importlib.metadata  # here: it brings a parser of e-mail along, and few runs ask

    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ""
