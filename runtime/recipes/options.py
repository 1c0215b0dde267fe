"""What a recipe may hold, with the words and checks of the command line; importing this loads no library."""

import argparse
from collections.abc import Sequence

from runtime.common.argument_types import node, positive
from runtime.engines.remote.address import engine
from runtime.sources.arguments import add_view_arguments

OF_INSPECT = ("engine", "threshold", "roi", "mask", "mask-fill")
OF_CAMERA = ("exposure", "genicam")  # what a camera can change while it runs
OF_RECIPE = (*OF_INSPECT, "rotate", "flip", *OF_CAMERA)


def entry_parser(allowed: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of those options that an entry may hold."""
    whole = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    whole.add_argument("--engine", type=engine)
    whole.add_argument("--threshold")
    whole.add_argument("--exposure", type=positive)
    whole.add_argument("--genicam", action="append", type=node)
    add_view_arguments(whole)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for action in whole._actions:
        if action.option_strings[0].removeprefix("--") in allowed:
            parser._add_action(action)
    return parser
