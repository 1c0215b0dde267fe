"""An inspection that waits for triggers, in a thread of its own."""

import threading
import time

from runtime.inspection import Inspection
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from runtime.triggers.trigger import Trigger
from tests.support.waiting import wait_until

LONG = TriggerOptions(deadline_s=60.0, queue=500, skip=0)


class Kept:
    """Keeps what it is offered."""

    def __init__(self):
        self.judgements = []

    def offer(self, judgement):
        self.judgements.append(judgement)

    def by_part(self):
        return {judgement.trigger.part: judgement for judgement in self.judgements if judgement.answers}


class Started:
    """An inspection in a thread of its own; `kept` is among what it offers to, `orders` are its own."""

    def __init__(self, inspection, kept, orders=None):
        self.inspection, self.kept, self.orders = inspection, kept, orders
        self.thread = threading.Thread(target=self.inspection.run)
        self.thread.start()

    def ask(self, part, source=""):
        return self.orders.take(Trigger(part, time.monotonic(), "http", source))

    def wait(self, answers):
        wait_until(lambda: len(self.kept.judgements) >= answers)

    def stop(self):
        self.inspection.stop()
        self.thread.join(120)
        assert not self.thread.is_alive()
        self.inspection.close()


class Running(Started):
    """An inspection that waits for triggers, with what it has judged so far."""

    def __init__(self, sources, detector, options, receivers=(), inspection=None, views=()):
        kept, orders = Kept(), Orders(options)
        super().__init__(Inspection(sources, detector, [kept, *receivers], inspection, views, orders), kept, orders)


class Switching(Started):
    """An inspection by recipes of sources that end with it; `sinks` get what it judges, in its own thread."""

    def __init__(self, sources, recipes, orders=None, options=None, sinks=()):
        kept, detector = Kept(), recipes.in_force.first.detector
        passing = [type("To", (), {"offer": staticmethod(sink.write)})() for sink in sinks]
        inspection = Inspection(sources, detector, [*passing, kept], options, orders=orders, recipes=recipes)
        super().__init__(inspection, kept, orders)

    def of(self):
        return [(one.recipe, one.result.verdict, one.result.threshold) for one in self.kept.judgements]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.inspection.stop()
        for source in self.inspection.sources:
            source.close()
        self.stop()


def level_of(judgement):
    return int(judgement.frame.image[0, 0, 0])
