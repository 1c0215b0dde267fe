"""An OPC UA server of asyncua around `runtime.controller.opcua_nodes`."""

import asyncio
import contextlib
from datetime import datetime, timezone
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError

from runtime.common.notices import say
from runtime.controller import opcua_nodes
from runtime.controller.asking import Asking
from runtime.controller.board import Board
from runtime.controller.opcua_nodes import (
    INDEX,
    LINE,
    METHOD,
    NAMESPACE,
    RECIPE_METHOD,
    ROOT,
    SOURCE,
    START,
    About,
    Node,
)
from runtime.controller.opcua_options import OpcuaOptions
from runtime.controller.opcua_setup import CHUNK_BYTES, new_server, set_up
from runtime.recipes.book import NO_RECIPES, Recipes
from runtime.triggers.trigger import LONGEST_PART

LOOK_S = 0.1  # how soon what nobody wrote is seen: the safe state, the heartbeat, a trigger's progress
CONTROLLER = "controller (OPC UA)"


class LineServer:
    """Shows `board`, and passes what is written to `asking`. All of it runs in one event loop.

    What clients read is `_shown`, which is replaced as a whole: nodes that one request reads are of one moment.
    """

    def __init__(
        self, options: OpcuaOptions, about: About, board: Board, asking: Asking, recipes: Recipes | None = None
    ) -> None:
        self._options = options
        self._about = about
        self._recipes = recipes
        self._changes: set[asyncio.Task[str]] = set()  # of the recipe, under way
        self._board = board
        self._asking = asking
        self._shown: dict[str, ua.DataValue] = {}
        self._said: dict[str, Any] = {}  # the values in them
        self._written: dict[str, ua.DataValue] = {}
        self._publishing = asyncio.Lock()
        self._server = new_server(options)
        self._start = ua.NodeId(options.trigger, INDEX)
        self._keeping: asyncio.Task[None] | None = None

    async def listen(self) -> tuple[str, int]:
        """Begin, and return where. Raises `OSError` where it cannot listen, `UserError` for the certificate."""
        await set_up(self._server, self._options, self._about.version)
        index = self._index = await self._server.register_namespace(NAMESPACE)
        assert index == INDEX
        root = await self._server.nodes.objects.add_object(ua.NodeId(ROOT, index), f"{index}:{ROOT}")
        folder = await root.add_object(ua.NodeId(f"{ROOT}.Trigger", index), f"{index}:Trigger")
        self._renew()
        for node in LINE:
            path = f"{ROOT}.{node.name}"
            await self._add(folder if node.name.startswith("Trigger.") else root, path, node)
        for place in range(len(self._board.sources)):
            name = f"{ROOT}.Source{place + 1}"
            source = await root.add_object(ua.NodeId(name, index), f"{index}:Source{place + 1}")
            for node in SOURCE:
                await self._add(source, f"{name}.{node.name}", node)
        await self._add_method(root)
        await self._server.start()
        self._keeping = asyncio.create_task(self._keep())
        binary = self._server.bserver
        assert binary is not None
        return binary.hostname, binary.port

    async def _add(self, parent: Any, path: str, node: Node) -> None:
        """Add a variable whose value is looked up when it is read."""
        identifier = self._start if path == START else ua.NodeId(path, self._index)
        kind = ua.VariantType[node.kind]
        first = self._shown[path].Value.Value if path in self._shown else _EMPTY[node.kind]
        variable = await parent.add_variable(identifier, f"{self._index}:{node.name.rpartition('.')[2]}", first, kind)
        self._written[path] = ua.DataValue(ua.Variant(first, kind))
        shown = self._of_written if node.writable else self._of_shown
        self._server.set_attribute_value_callback(identifier, shown)
        self._server.set_attribute_value_setter(identifier, self._take if node.writable else _keep_shown)
        if node.writable:
            await variable.set_writable()

    def _of_shown(self, identifier: ua.NodeId, attribute: ua.AttributeIds) -> ua.DataValue:
        return self._shown[str(identifier.Identifier)]

    def _of_written(self, identifier: ua.NodeId, attribute: ua.AttributeIds) -> ua.DataValue:
        return self._written[self._path(identifier)]

    def _path(self, identifier: ua.NodeId) -> str:
        return START if identifier == self._start else str(identifier.Identifier)

    def _take(self, node: Any, attribute: ua.AttributeIds, value: ua.DataValue) -> None:
        """Take what a client writes."""
        path = self._path(node.nodeid)
        before = self._written[path]
        if value.Value is None or value.Value.VariantType != before.Value.VariantType or value.Value.is_array:
            raise ServiceError(ua.StatusCodes.BadTypeMismatch)
        if value.Value.Value is None or (path.endswith(".PartId") and len(value.Value.Value) > LONGEST_PART):
            raise ServiceError(ua.StatusCodes.BadOutOfRange)
        self._written[path] = value
        if path.endswith(".ControllerHeartbeat"):
            self._board.controller_beats(value.Value.Value)
        elif path == START:
            self._asking.write(value.Value.Value, self._written[f"{ROOT}.Trigger.PartId"].Value.Value)
            self._renew()
        elif path.endswith(".RecipeRequest"):
            self._begin_change(value.Value.Value)

    def _begin_change(self, name: str) -> None:
        """Have the recipe changed; `Recipe` shows it once it is. Raises `ServiceError` for one that is not there."""
        if self._recipes is None or name not in self._recipes.names:
            raise ServiceError(ua.StatusCodes.BadOutOfRange)
        task = asyncio.get_running_loop().create_task(self._change_recipe(name))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _change_recipe(self, name: str) -> str:
        """Judge by the recipe `name` from now on; return why not, an empty string where it is in force."""
        if self._recipes is None:
            return NO_RECIPES
        refusal = await asyncio.to_thread(self._recipes.use, name, CONTROLLER, "opcua")
        if refusal:
            say(f"OPC UA: {refusal}")
        await self.publish()
        return refusal

    async def _add_method(self, root: Any) -> None:
        for method, what, given in (
            (METHOD, self._inspect, "PartId"),
            (RECIPE_METHOD, self._select_recipe, "Recipe"),
        ):
            asked, accepted, reason = (
                ua.Argument(Name=name, DataType=ua.NodeId(getattr(ua.ObjectIds, kind)), ValueRank=-1)
                for name, kind in ((given, "String"), ("Accepted", "Boolean"), ("Reason", "String"))
            )
            identifier = ua.NodeId(f"{ROOT}.{method}", self._index)
            await root.add_method(identifier, f"{self._index}:{method}", what, [asked], [accepted, reason])

    async def _select_recipe(self, parent: ua.NodeId, *given: ua.Variant) -> Any:
        """Answer a call of the method, once the recipe is in force or refused."""
        if len(given) != 1 or given[0].VariantType != ua.VariantType.String or given[0].is_array:
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        reason = await self._change_recipe(given[0].Value or "")
        return [ua.Variant(not reason, ua.VariantType.Boolean), ua.Variant(reason, ua.VariantType.String)]

    async def _inspect(self, parent: ua.NodeId, *given: ua.Variant) -> Any:
        """Answer a call of the method: whether the part will be answered."""
        if len(given) != 1 or given[0].VariantType != ua.VariantType.String or given[0].is_array:
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        reason = self._asking.ask(given[0].Value or "")
        await self.publish()
        return [ua.Variant(not reason, ua.VariantType.Boolean), ua.Variant(reason, ua.VariantType.String)]

    async def publish(self) -> None:
        """Show what there is now, and tell those who subscribed."""
        async with self._publishing:  # or an older value could be told after a newer one
            for path in self._renew():
                await self._server.write_attribute_value(ua.NodeId(path, self._index), self._shown[path])

    def _renew(self) -> list[str]:
        """Replace what is shown and return the paths that changed, a source's sequence after its other values."""
        board, asking = self._board, self._asking
        stopped = board.stopped()
        now_said = (stopped, board.heartbeat, asking.started, asking.handshake, board.drifts)
        line = opcua_nodes.line_values(self._about_now(), *now_said)
        said = {f"{ROOT}.{name}": value for name, value in line.items()}
        kinds = {f"{ROOT}.{node.name}": node.kind for node in LINE}
        for place, answer in enumerate(board.shown()):
            prefix = f"{ROOT}.Source{place + 1}."
            said |= {
                prefix + name: value for name, value in opcua_nodes.source_values(board.sources[place], answer).items()
            }
            kinds |= {prefix + node.name: node.kind for node in SOURCE}
        changed = [path for path, value in said.items() if repr(self._said.get(path)) != repr(value)]  # NaN is not NaN
        now = datetime.now(timezone.utc)
        self._said = said
        self._shown = self._shown | {path: _value(said[path], kinds[path], now) for path in changed}
        return changed

    def _about_now(self) -> About:
        if self._recipes is None:
            return self._about
        judges = self._recipes.in_force
        return About(judges.engine, judges.engine_sha256, self._about.version, judges.name)

    async def _keep(self) -> None:
        """Show what changes by itself, and end connections that send too much before it is a message."""
        while True:
            await self.publish()
            for client in list(self._server.bserver.clients) if self._server.bserver else ():
                if len(client._buffer) > 2 * CHUNK_BYTES and client.transport is not None:
                    client.transport.abort()
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """End all connections and stop listening."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        await self._server.stop()


_EMPTY: dict[str, Any] = {"String": "", "Boolean": False, "UInt32": 0}  # of what only clients write


def _value(value: Any, kind: str, now: datetime) -> ua.DataValue:
    return ua.DataValue(ua.Variant(value, ua.VariantType[kind]), SourceTimestamp=now, ServerTimestamp=now)


def _keep_shown(node: Any, attribute: ua.AttributeIds, value: ua.DataValue) -> None:
    """Leave the value to what is shown; this write only tells subscribers."""
