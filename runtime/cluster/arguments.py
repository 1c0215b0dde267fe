"""The command line's part on clusters, the same for all commands that can use one; light, for --help."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.common.argument_types import count
from runtime.common.errors import UserError

LOCAL = "local"


@dataclass(frozen=True)
class ClusterSpec:
    """What was asked for: `library` "ray" or "dask", and its `address`, or `LOCAL` for one of this machine alone.

    `workers` None: as many as there is room for.
    """

    library: str
    address: str
    workers: int | None = None

    @property
    def local(self) -> bool:
        """Whether it is begun for this command, and ends with it."""
        return self.address == LOCAL


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--workers`, `--ray` and `--dask`; `what` each worker does."""
    group = parser.add_argument_group("where it runs")
    group.add_argument("--workers", type=count, metavar="N", help=f"processes, each {what} (default: a core each)")
    which = group.add_mutually_exclusive_group()
    where = "ADDRESS of one that runs, or local for one of this machine alone"
    which.add_argument("--ray", metavar="ADDRESS", help=f"on a Ray cluster: {where}")
    which.add_argument("--dask", metavar="ADDRESS", help=f"on a Dask cluster: {where}")


def spec_from(args: argparse.Namespace) -> ClusterSpec | None:
    """Return the cluster that was asked for; None for none. Raises `UserError` for an empty address."""
    given: Mapping[str, str | None] = {"ray": args.ray, "dask": args.dask}
    for library, address in given.items():
        if address is not None and not address.strip():
            raise UserError(f"--{library} must be an address or {LOCAL}", "an empty text", f"--{library} {LOCAL}")
        if address is not None:
            return ClusterSpec(library, address.strip(), args.workers)
    return None
