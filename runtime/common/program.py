"""What a command calls itself in its help: `cflow infer` where `cflow` started it, else its own name."""

import sys

PROGRAM = "cflow"


def program_name(own: str) -> str:
    """Return the name for a command's help and usage; `own` is what it is called when run by itself.

    `cflow` puts its own name and the subcommand in front of the arguments, as the system does with a program's.
    """
    return sys.argv[0] if sys.argv[0].startswith(f"{PROGRAM} ") else own
