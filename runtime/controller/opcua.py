"""Verdicts as nodes of an OPC UA server, and triggers from a node or a method."""

import gc

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.listening import Address
from runtime.controller.asking import Asking
from runtime.controller.board import Board
from runtime.controller.loop_thread import LoopThread
from runtime.controller.opcua_nodes import About
from runtime.controller.opcua_options import OpcuaOptions
from runtime.recipes.book import Recipes
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
from runtime.triggers.trigger import TriggerInput

START_S = 120.0  # asyncua makes the thousands of nodes that every server has; a small machine takes its time
PUBLISH_S = 5.0


class OpcuaServer(Closing):
    """A sink whose answers a controller reads, and what its triggers come from. `board` is this server's own.

    Recipes can be changed from it where there are `recipes`.

    Raises `UserError` where asyncua is missing, the port is taken or the certificate is none.
    """

    queueing = Queueing(capacity=256, keep="newest", pictures=False, answers_only=True)

    def __init__(self, options: OpcuaOptions, board: Board, about: About, recipes: Recipes | None = None) -> None:
        try:
            from runtime.controller.opcua_server import LineServer
        except ImportError as error:
            raise UserError("--opcua needs asyncua", str(error), "pip install 'cflow-edge[opcua]'") from None
        self.board = board
        self._asking = Asking("opcua", board.sources)
        self._thread = LoopThread("OPC UA", "asyncua")
        address = options.address

        async def begin() -> "tuple[LineServer, tuple[str, int]]":
            server = LineServer(options, about, board, self._asking, recipes)
            return server, await server.listen()

        try:
            self._server, (host, port) = self._thread.call(begin(), START_S)
        except OSError as error:
            self._thread.close()
            if error.filename is not None:  # a certificate
                raise
            where = f"{address.host}:{address.port}"
            reason = error.strerror or str(error)
            raise UserError(f"--opcua must be able to listen on {where}", reason, "choose another port") from None
        except BaseException:
            self._thread.close()
            raise
        gc.freeze()  # asyncua's thousands of nodes stay: no collection has to look at them while frames are judged
        self.address = Address(host, port)
        self.name = f"OPC UA {host}:{port}"

    @property
    def triggers(self) -> dict[str, TriggerInput]:
        """What triggers come from, by its kind."""
        return {"opcua": self._asking}

    def write(self, judgement: Judgement) -> None:
        """Let clients read this judgement's answer from now on. Raises `OSError` if the server does not take it."""
        self._asking.answered(judgement.source, self.board.put(judgement.told()))
        self._thread.call(self._server.publish(), PUBLISH_S)

    def close(self) -> None:
        """Show no verdict any more, then end; a second call does nothing."""
        self.board.close()
        self._thread.end(self._server.stop)
