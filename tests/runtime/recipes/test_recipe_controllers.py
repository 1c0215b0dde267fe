"""Who changes the recipe: a controller by Modbus and OPC UA, MQTT, the page; each with clients of their libraries."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.common.files import sha256_of
from runtime.controller.board import Board, Limits
from runtime.controller.opcua_nodes import About
from runtime.engines.sidecar import Threshold
from runtime.engines.thresholds import BY_HAND, store_in_sidecar
from runtime.inputs.mqtt_recipes import MqttRecipes
from runtime.recipes.book import Recipes
from runtime.records.log import Log
from runtime.records.read import audit
from runtime.serve.changes import Changes
from runtime.serve.threshold_control import ThresholdControl
from runtime.sinks.mqtt_options import MqttOptions
from tests.support.broker import Broker, Listener, needs_broker
from tests.support.judgements import judgement
from tests.support.recipes import TWO, opened, opened_again, write_recipes
from tests.support.serve_rig import TOKEN, serving
from tests.support.waiting import wait_until

ACTION = {"X_Requested_By": "cflow-edge"}
PATIENT = Limits(safe_after_s=600.0, valid_s=600.0)


@pytest.fixture
def recipes(tmp_path: Path):
    with opened(tmp_path) as found:
        yield found


def _board() -> Board:
    board = Board(["a"], PATIENT)
    board.beat()
    return board


def _judged(recipes: Recipes, name: str) -> Any:
    one = replace(judgement(0, 0.5, "a"), judged_s=time.monotonic(), recipe=name)
    return replace(one, engine_sha256=recipes[name].engine_sha256)


def test_a_controller_changes_the_recipe_by_its_number(recipes: Recipes):
    pytest.importorskip("pymodbus")
    from pymodbus.client import AsyncModbusTcpClient

    from runtime.controller.modbus import ModbusOptions, ModbusServer
    from runtime.controller.modbus_map import BLOCK, LINE, RECIPE_REQUEST, SIZE, SOURCE
    from tests.support.modbus import decoded

    async def work(port: int) -> None:
        async with AsyncModbusTcpClient("127.0.0.1", port=port, timeout=30) as client:

            async def line() -> tuple[int, int]:
                shown = decoded((await client.read_input_registers(0, count=SIZE)).registers, LINE)
                return shown["Recipe"], shown["RecipeRequest"]

            assert await line() == (1, 0)
            for wrong in (0, 2, 65535):
                refused = await client.write_register(RECIPE_REQUEST, wrong)
                assert refused.isError() and refused.exception_code == 3
            assert await line() == (1, 0) and recipes.name_in_force() == "low"
            assert not (await client.write_register(RECIPE_REQUEST, 7)).isError()
            assert recipes.name_in_force() == "high"  # when the write is answered
            assert await line() == (7, 7)
            server.write(_judged(recipes, "low"))  # a part that was triggered before
            shown = decoded((await client.read_input_registers(BLOCK, count=SIZE)).registers, SOURCE)
            assert shown["Recipe"] == 1
            recipes.around = _refuses
            refused = await client.write_register(RECIPE_REQUEST, 1)
            assert refused.isError() and refused.exception_code == 4 and await line() == (7, 7)

    with ModbusServer(ModbusOptions.parse("0"), _board(), recipes) as server:
        asyncio.run(work(server.address.port))


@contextlib.contextmanager
def _refuses(old: object, new: object) -> Any:
    raise OSError("the camera does not take it")
    yield


def test_a_controller_changes_the_recipe_by_node_and_by_method(recipes: Recipes):
    pytest.importorskip("asyncua")
    from asyncua import ua

    from runtime.controller.opcua import OpcuaServer
    from runtime.controller.opcua_options import OpcuaOptions
    from tests.support.opcua_client import Line, connected

    @contextlib.asynccontextmanager
    async def line() -> AsyncIterator[Line]:
        async with connected(server.address.port) as found:
            yield found

    async def work() -> None:
        async with line() as of:
            hashes = {name: recipes[name].engine_sha256 for name in recipes.names}
            assert await of.read("Recipe", "Engine", "ModelHash") == ["low", "low.onnx", hashes["low"]]
            with pytest.raises(ua.UaStatusCodeError) as bad:
                await of.node("RecipeRequest").write_value("medium")
            assert bad.value.code == ua.StatusCodes.BadOutOfRange and recipes.name_in_force() == "low"
            await of.node("RecipeRequest").write_value("high")
            deadline = time.monotonic() + 120
            while await of.read("Recipe", "Engine", "ModelHash") != ["high", "high.onnx", hashes["high"]]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            method = f"{of.index}:SelectRecipe"
            assert await of.node().call_method(method, "low") == [True, ""]
            assert await of.read("Recipe") == ["low"]
            accepted, reason = await of.node().call_method(method, "medium")
            assert not accepted and reason.startswith("there is no recipe of that name: expected low, high")
            await asyncio.to_thread(server.write, _judged(recipes, "high"))
            assert await of.read("Source1.Recipe", "Source1.ModelHash") == ["high", hashes["high"]]

    with OpcuaServer(OpcuaOptions.parse("0"), _board(), About(), recipes) as server:
        asyncio.run(work())


@needs_broker
def test_a_message_changes_the_recipe_and_a_wrong_one_is_refused(recipes: Recipes, tmp_path: Path):
    broker = Broker(tmp_path)
    listener = Listener(broker)
    publish = listener._client.publish
    try:
        publish("line1/recipe", "high", 1, retain=True).wait_for_publish(10)  # of the past
        with MqttRecipes(MqttOptions.parse(broker.url()), "line1/recipe", recipes) as topic:
            assert topic.subscribed.wait(120)

            def in_force() -> str:
                told = [text for name, text in listener.got if name == "line1/recipe/in-force"]
                return told[-1].decode() if told else ""

            wait_until(lambda: in_force() == "low")
            publish("line1/recipe", '{"recipe": "high"}', 1)
            wait_until(lambda: in_force() == "high")
            assert recipes.name_in_force() == "high"
            recipes.use("low", "somebody else", "the page")
            wait_until(lambda: in_force() == "low")
            for wrong in ("medium", '{"recipe": 7}', "x" * 65):
                publish("line1/recipe", wrong, 1)
            wait_until(lambda: [name for name, _ in listener.got].count("line1/recipe/refused") == 3)
            assert recipes.name_in_force() == "low"
    finally:
        listener.stop()
        broker.kill()


def test_the_page_changes_the_recipe_with_its_token_only(recipes: Recipes, tmp_path: Path):
    with Log(tmp_path / "i.db") as log, serving(tmp_path, TOKEN, log=log, recipes=recipes) as rig:
        log.note({"recipe": "low"}, "x", "y")
        recipes.told.append(Changes(log, lambda error: pytest.fail(str(error))).recipe)
        signed = {"Authorization": f"Bearer {TOKEN}"}
        assert rig.state(**signed)["recipe"] == {"name": "low", "names": ["low", "high"]}
        assert rig.ask("/api/recipe", "POST", {"recipe": "high"}, **ACTION).status == 401
        refused = rig.ask("/api/recipe", "POST", {"recipe": "medium"}, **signed)
        assert refused.status == 404 and "expected low, high" in refused.json()["error"]
        assert recipes.name_in_force() == "low"
        assert rig.ask("/api/recipe", "POST", {"recipe": "high"}, **signed).json() == {"recipe": "high"}
        state = rig.state(**signed)
        assert (state["recipe"]["name"], state["engine"], state["threshold"]["value"]) == ("high", "high", 2.0)
        changes = rig.ask("/api/audit", **signed).json()["changes"]
        [change] = [one for one in changes if one["what"] == "recipe" and one["new"] == "high"]
        assert (change["who"], change["old"], change["origin"]) == (
            "page, signed in with the token",
            "low",
            "127.0.0.1",
        )


def test_a_page_without_a_token_changes_the_recipe_for_its_own_visitors_only(recipes: Recipes, tmp_path: Path):
    body = {"recipe": "high"}
    with serving(tmp_path, recipes=recipes) as rig:
        for headers in (
            {},
            {"Origin": "https://elsewhere.example", **ACTION},
            {"Sec_Fetch_Site": "cross-site", **ACTION},
        ):
            assert rig.ask("/api/recipe", "POST", body, **headers).status == 403
        assert rig.ask("/api/recipe", "POST", body, Host="elsewhere.example", **ACTION).status == 421
        assert recipes.name_in_force() == "low"
        assert rig.ask("/api/recipe", "POST", body, **ACTION).json() == body
        assert recipes.name_in_force() == "high"


def test_after_a_threshold_of_the_page_the_audit_knows_the_sidecar_that_is_there(tmp_path: Path):
    """The recipe goes away and comes back: the sidecar is the one that was written, not the one that was loaded."""
    text = TWO + '[[recipe]]\nname = "same"\nengine = "{folder}/low.onnx"\nthreshold = 1.5\n'
    with opened(tmp_path, text) as recipes, Log(tmp_path / "i.db") as log:
        changes = Changes(log, lambda error: pytest.fail(str(error)))
        recipes.told.append(changes.recipe)
        loaded = {name: recipes[name].sidecar_sha256 for name in recipes.names}
        log.note({"recipe": "low", "sidecar": loaded["low"]}, "x", "y")
        ThresholdControl(recipes, changes).write(0.5, 1.0, "me", "test")
        written = sha256_of(tmp_path / "low.json")
        for name in ("high", "low", "same"):
            assert recipes.use(name, "me", "test") == ""
        found = [(one["old"], one["new"]) for one in audit(log.path) if one["what"] == "sidecar"]
    high = loaded["high"]
    assert found == [(high, written), (written, high), (loaded["low"], written)]
    assert loaded["low"] != written


def test_a_page_without_recipes_says_so(tmp_path: Path):
    with serving(tmp_path) as rig:
        assert rig.state()["recipe"] is None
        refused = rig.ask("/api/recipe", "POST", {"recipe": "low"}, **ACTION)
        assert refused.status == 404 and "--recipes" in refused.json()["error"]


def test_a_threshold_of_the_page_is_the_recipes_own_and_outlives_changes_of_recipe(tmp_path: Path):
    """Two recipes share an engine and its threshold, a third has a number, a fourth another engine."""
    text = TWO + "".join(
        f'[[recipe]]\nname = "{name}"\nengine = "{{folder}}/low.onnx"\n{line}\n'
        for name, line in (("same", ""), ("number", "threshold = 1.5"))
    )
    signed = {"Authorization": f"Bearer {TOKEN}"}
    with opened(tmp_path, text) as recipes, serving(tmp_path, TOKEN, recipes=recipes) as rig:

        def ask(value: float, instead_of: float, recipe: str) -> Any:
            body = {"value": value, "instead_of": instead_of, "recipe": recipe}
            return rig.ask("/api/threshold", "POST", body, **signed)

        assert ask(0.5, 1.0, "high").status == 409  # another recipe is in force than the visitor saw
        assert ask(0.5, 1.0, "low").status == 200
        assert [recipes[name].limits[0] for name in ("low", "same", "number", "high")] == [0.5, 0.5, 1.5, 2.0]
        recipes.use("number", "me", "test")
        refused = ask(0.7, 1.5, "number")
        assert refused.status == 422 and "has a number of its own" in refused.json()["error"]
        assert rig.state(**signed)["threshold"]["fixed"]
        recipes.use("low", "me", "test")
        assert rig.state(**signed)["threshold"]["value"] == 0.5
    with opened_again(tmp_path) as recipes:  # the same after a restart
        assert [recipes[name].limits[0] for name in ("low", "same", "number", "high")] == [0.5, 0.5, 1.5, 2.0]


NAMES = """
[[recipe]]
name = "explicit"
engine = "{folder}/low.onnx"
threshold = "good_quantile"

[[recipe]]
name = "by hand"
engine = "{folder}/low.onnx"
threshold = "manual"

[[recipe]]
name = "left out"
engine = "{folder}/low.onnx"
"""


@pytest.mark.parametrize("first", ["explicit", "by hand", "left out"])
@pytest.mark.parametrize("second", ["explicit", "by hand", "left out"])
def test_thresholds_of_the_page_are_those_of_the_next_start_however_a_recipe_names_its_own(
    tmp_path: Path, first: str, second: str
):
    """The name of the sidecar's default, the name that a page writes under, and no name at all, on one engine."""
    write_recipes(tmp_path, NAMES)
    kept = store_in_sidecar(tmp_path / "low.onnx", BY_HAND, Threshold(0.8, "for the test"), default=False)
    assert kept.default_threshold == "good_quantile"
    with opened_again(tmp_path) as recipes:
        control = ThresholdControl(recipes, Changes(None, lambda error: pytest.fail(str(error))))
        for name, value in ((first, 1.5), (second, 1.7)):
            recipes.use(name, "me", "test")
            control.write(value, control.status().value, "me", "test")
            assert control.status().value == value
        held = {recipe.name: recipe.limits[0] for recipe in recipes.all}
    with opened_again(tmp_path) as recipes:
        assert {recipe.name: recipe.limits[0] for recipe in recipes.all} == held


def test_a_change_of_recipe_waits_for_a_threshold_so_that_the_audit_has_both_in_their_order(tmp_path: Path):
    with opened(tmp_path) as recipes, Log(tmp_path / "i.db") as log:
        changes = Changes(log, lambda error: pytest.fail(str(error)))
        log.note({"recipe": "low", "threshold": "1"}, "x", "y")
        recipes.told.append(changes.recipe)
        began, note = threading.Event(), changes.note

        def slow(in_force: Any, who: str, origin: str) -> None:
            if who == "slow":
                began.set()
                time.sleep(0.3)
            note(in_force, who, origin)

        changes.note = slow  # type: ignore[method-assign]
        control = ThresholdControl(recipes, changes)
        writer = threading.Thread(target=control.write, args=(1.5, 1.0, "slow", "test"))
        writer.start()
        assert began.wait(120) and recipes.use("high", "me", "test") == ""
        writer.join(120)
        found = [(one["old"], one["new"]) for one in audit(log.path) if one["what"] == "threshold"]
        assert found == [("1.5", "2"), ("1", "1.5")]
