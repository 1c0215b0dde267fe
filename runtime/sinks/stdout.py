"""Standard output as a sink has it: written from the sink's thread, whatever its reader does."""

import os
import sys

from runtime.common.notices import write_some

WAIT_S = 60.0  # for a reader that stands still, and again, for ever: what does not wait is the inspection


class Stdout:
    """Whole lines on stdout, past Python's buffer, in which a reader that has gone would leave something for the exit.

    `gone` says that nobody reads them any more (`| head`).
    """

    def __init__(self) -> None:
        self.gone = False

    def write(self, data: bytes) -> None:
        """Write all of `data`, however long the reader takes. Raises `OSError` if it has gone, or for a full disk."""
        stream = sys.stdout
        try:
            if stream is not None:
                stream.flush()
            while data:
                data = data[len(data) - write_some(stream, data, WAIT_S) :]
        except BrokenPipeError:
            self.gone = True
            raise
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), "stdout") from None
