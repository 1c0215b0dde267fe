"""`python -m runtime.report`."""

import sys

from runtime.report.main import command

if __name__ == "__main__":
    sys.exit(command())
