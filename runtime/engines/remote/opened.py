"""A server's engine opened and checked, so that the first frame of the user's is judged by what was built."""

import numpy as np

from runtime.common.errors import UserError
from runtime.engines.golden import Golden, WrongScores, check_golden
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.contract import Served
from runtime.engines.remote.link import first_look
from runtime.engines.remote.options import ServerOptions
from runtime.engines.remote.session import RemoteSession
from runtime.engines.session import Unanswered

BYTES = "look at its log, or name it by grpc://: not every server takes frames as bytes by HTTP"


def open_remote(engine: RemoteEngine, options: ServerOptions) -> tuple[RemoteSession, Served]:
    """Return a session that gives the sidecar's golden frames their scores, and what the server serves.

    Raises `UserError` where the server is not there, or serves something else than its sidecar says.
    """
    found = first_look(engine, options)
    session = RemoteSession(engine, options, found)
    try:
        if not _gives_golden_scores(session, found):
            session.run(np.zeros((1, *session.frame_size, 3), np.uint8))
    except Unanswered as unanswered:
        session.close()
        cure = "look at its log" if engine.scheme.startswith("grpc") else BYTES
        raise UserError(f"{engine} must judge a first frame", str(unanswered), cure) from None
    except UserError:
        session.close()
        raise
    return session, found


def _gives_golden_scores(session: RemoteSession, found: Served) -> bool:
    """Return whether there are golden frames; of an engine that the server does not name, any precision's scores do.

    Raises `WrongScores` where the session gives others.
    """
    golden = found.sidecar.golden
    if golden is None:
        return False
    if found.artefact is not None:
        return check_golden(session, golden, found.artefact.precision, "")
    *others, last = golden.scores or [""]
    return any(_gives(session, golden, precision) for precision in others) or check_golden(session, golden, last, "")


def _gives(session: RemoteSession, golden: Golden, precision: str) -> bool:
    try:
        return check_golden(session, golden, precision, "")
    except WrongScores:
        return False
