"""`python -m runtime.gauge`."""

import sys

from runtime.gauge.main import command

sys.exit(command())
