"""Recipes from an MQTT broker: a message on a topic changes the one that is in force.

The payload is the recipe's name as plain text, or JSON: `{"recipe": "cable"}`. `TOPIC/in-force` holds the name of the
one that judges, whoever changed it (retained); what is refused is told on `TOPIC/refused`.
"""

import contextlib
import queue
import threading
from typing import Any

from runtime.inputs.mqtt import Subscription
from runtime.recipes.book import Recipes
from runtime.recipes.message import LONGEST, parsed
from runtime.recipes.recipe import Recipe
from runtime.sinks.mqtt_client import QOS
from runtime.sinks.mqtt_options import MqttOptions

WHO = "MQTT"
EXPECTED = 'a name, or {"recipe": "its name"}'
MOST_WAITING = 16


class MqttRecipes(Subscription):
    """Changes the recipe as messages on `topic` ask for it, from a thread of its own: cameras may have to be set."""

    what, option, example = "recipe", "--recipe-topic", "line1/recipe"

    def __init__(self, options: MqttOptions, topic: str, recipes: Recipes) -> None:
        super().__init__(options, topic)
        self._recipes = recipes
        self._asked_for: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="recipes of MQTT", daemon=True)
        recipes.told.append(self._tell)
        self._thread.start()
        self._connect()

    def _asked(self, payload: bytes) -> tuple[dict[str, str], str]:
        try:
            name = parsed(payload)
        except (ValueError, RecursionError):
            return {"recipe": payload[:LONGEST].decode("utf-8", "replace")}, f"a recipe is asked for by {EXPECTED}"
        try:
            self._asked_for.put_nowait(name)
        except queue.Full:
            return {"recipe": name}, "too many changes wait already"
        return {"recipe": name}, ""

    def _work(self) -> None:
        while (name := self._asked_for.get()) is not None:
            if refusal := self._recipes.use(name, WHO, self._topic):
                self._refuse({"recipe": name}, refusal)

    def _ready(self, client: Any) -> None:
        self._tell_in_force()

    def _tell(self, old: Recipe, new: Recipe, who: str, origin: str) -> None:
        self._tell_in_force()

    def _tell_in_force(self) -> None:
        if self.subscribed.is_set():  # else it is told once that is so
            self._client.publish(f"{self._topic}/in-force", self._recipes.name_in_force(), QOS, retain=True)

    def close(self) -> None:
        """Say "offline", disconnect and take no more; a second call does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._asked_for.put_nowait(None)
        super().close()
