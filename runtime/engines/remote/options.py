"""How a server is spoken to: the command line's part, and what `runtime.load` takes."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from runtime.common.argument_types import count, positive, seconds


@dataclass(frozen=True)
class ServerOptions:
    """How a server with engines is spoken to.

    `deadline_ms` is within what a frame has its answer, or no verdict; `wait_s` how long a start waits for the server;
    `in_flight` how many requests are under way at once. `sidecar` is the sidecar's file, or a folder with MODEL.json
    (None: the server's own parameters). `ca`, `certificate` and `key` are PEM files for TLS; `token` is a file with a
    bearer token. `shared_memory` False sends frames by the network on the same machine too.
    """

    deadline_ms: float = 1000.0
    wait_s: float = 0.0
    in_flight: int = 2
    sidecar: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: Path | None = None
    shared_memory: bool = True


DEFAULTS = ServerOptions()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `options_of` reads."""
    group = parser.add_argument_group("an engine on a server (--engine grpc://HOST:8001/cable)")
    add = group.add_argument
    add(
        "--server-deadline",
        type=positive,
        default=DEFAULTS.deadline_ms,
        metavar="MS",
        help="a frame without an answer by then has no verdict (default: %(default)g ms)",
    )
    add(
        "--server-wait",
        type=seconds,
        default=DEFAULTS.wait_s,
        metavar="S",
        help="wait for the server at the start (default: %(default)g s)",
    )
    add(
        "--server-in-flight",
        type=count,
        default=DEFAULTS.in_flight,
        metavar="N",
        help="requests under way at once (default: %(default)s)",
    )
    add("--sidecar", type=Path, metavar="PATH", help="the .json, or a folder with MODEL.json, of a server without it")
    add("--server-ca", type=Path, metavar="PEM", help="certificates that sign the server's (default: the system's)")
    add("--server-cert", type=Path, metavar="PEM", help="this client's own certificate, where the server wants one")
    add("--server-key", type=Path, metavar="PEM", help="the key of --server-cert")
    add("--server-token", type=Path, metavar="FILE", help="a file with a token that is sent as Authorization: Bearer")
    add("--no-shared-memory", action="store_true", help="send frames by the network on the same machine, too")


def options_of(args: argparse.Namespace) -> ServerOptions:
    """Return what `add_arguments` has parsed."""
    return ServerOptions(
        args.server_deadline,
        args.server_wait,
        args.server_in_flight,
        args.sidecar,
        args.server_ca,
        args.server_cert,
        args.server_key,
        args.server_token,
        not args.no_shared_memory,
    )
