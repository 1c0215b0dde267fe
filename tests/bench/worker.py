"""Samples of one case, one for each line on stdin, as JSON on stdout: of the checkout that PYTHONPATH names."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from cases import CASES  # beside this file: the checkout that is measured may not have it


def main() -> None:
    """Run the case that the command line names, on the engine that it names."""
    name, engine = sys.argv[1:]
    sample = CASES[name].prepare(Path(engine) if engine else None)
    for _ in sys.stdin:
        print(json.dumps(sample()), flush=True)


if __name__ == "__main__":
    main()
