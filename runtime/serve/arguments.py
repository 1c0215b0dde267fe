"""The command line of the page: `--serve`, `--token-file`, `--health-after`; importing this loads no web library."""

import argparse
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.serve.address import TOKEN_VARIABLE, Address, read_token

if TYPE_CHECKING:
    from runtime.drift.watch import DriftWatch
    from runtime.recipes.book import Recipes
    from runtime.records.log import Log
    from runtime.serve.server import Server
    from runtime.shadow.promotion import Promotion
    from runtime.triggers.orders import Orders

LIBRARIES = ("aiohttp", "prometheus_client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `server_from` reads."""
    group = parser.add_argument_group("web page")
    group.add_argument(
        "--serve",
        metavar="[HOST:]PORT",
        help="a page for the browser, /metrics and /health; this machine only, unless HOST and a token are given",
    )
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"holds the token to sign in with (or set {TOKEN_VARIABLE})"
    )
    group.add_argument(
        "--health-after",
        type=float,
        default=10.0,
        metavar="S",
        help="/health fails once the last judgement is older than S seconds (10)",
    )


def server_from(
    args: argparse.Namespace,
    recipes: "Recipes",
    sources: Callable[[], Iterable[Any]] = tuple,
    deliveries: Callable[[], Iterable[Any]] = tuple,
    log: "Log | None" = None,
    orders: "Orders | None" = None,
    shadow: "Promotion | None" = None,
    drift: "DriftWatch | None" = None,
) -> "Server | None":
    """Return the server that `args` ask for, listening, its address told on stderr, or None for none.

    `recipes` are what judges, `log` the inspection log, which gets the page's changes; `shadow` is
    the candidate beside the line, `drift` watches the sources.
    Raises `UserError` as `Server` does, for options that do not fit, and where the libraries are missing.
    """
    if args.serve is None:
        if args.token_file is not None:
            raise UserError("--token-file needs --serve", "none", "add --serve [HOST:]PORT")
        return None
    address = Address.parse(args.serve)
    if not args.health_after > 0:
        raise UserError("--health-after must be above 0 seconds", str(args.health_after))
    token = read_token(args.token_file)
    missing = [library for library in LIBRARIES if not find_spec(library)]
    if missing:
        raise UserError("--serve needs aiohttp and prometheus-client", f"no {missing[0]}", "pip install '.[serve]'")
    from runtime.serve.server import ServeOptions, Server

    options = ServeOptions(address, token, args.health_after)
    server = Server(options, recipes, sources, deliveries, log, orders, shadow=shadow, drift=drift)
    say(f"page: {server.address.url()}")
    return server
