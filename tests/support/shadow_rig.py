"""A line with a candidate beside it: real engines, a real log, a source that a test feeds, and the page over it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.infer import build_parser
from runtime.inspection import Inspection, InspectionOptions
from runtime.line import masked_for_shadow, open_recipes
from runtime.recipes import arguments as recipe_arguments
from runtime.recipes.book import Recipes
from runtime.recipes.promoted import standings_of
from runtime.records.log import Log
from runtime.records.options import run_of
from runtime.records.read import Query, judgements
from runtime.serve.address import Address
from runtime.serve.server import ServeOptions, Server
from runtime.shadow.arguments import open_shadow
from runtime.shadow.promotion import Promotion
from runtime.sinks.delivery import Deliveries
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Source
from runtime.triggers.orders import Orders
from tests.support.controlled_source import ControlledSource
from tests.support.serve_rig import AT_ONCE, Answer, Rig
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triggered_run import Kept, Started
from tests.support.waiting import wait_until

ASKED = {"X_Requested_By": "cflow-edge"}
GOOD, BETWEEN, BAD = 40, 128, 220  # grey levels: score 0.47, 1.5 and 2.6; `cable` is held to 1, `cable2` to 2


@dataclass
class ShadowRig:
    """What `runtime.infer --shadow` opens, with an inspection that runs; a frame of grey level v scores 3·v/255."""

    promotion: Promotion
    recipes: Recipes
    running: Started
    page: Rig
    log: Path
    folder: Path
    camera: ControlledSource

    def judge(self, *levels: int) -> None:
        """Put frames before the camera, and wait until each was judged, and compared or left out."""
        self.feed(*levels)
        wait_until(lambda: not self.promotion.shadow._queue and self.seen() >= len(self.judgements) - self.before)

    def feed(self, *levels: int) -> None:
        """Put frames before the camera, one after the other as each was judged."""
        for level in levels:
            before = len(self.judgements)
            self.camera.put(level)
            self.running.wait(before + 1)

    before = 0  # judgements that the present comparison has not seen

    def seen(self) -> int:
        """Return how many frames were compared, or left out."""
        counts = self.promotion.shadow.ledger.counts
        return counts.compared + counts.unjudged + counts.candidate_none + counts.failed + counts.skipped

    @property
    def judgements(self) -> list[Judgement]:
        """Everything that was judged."""
        found: list[Judgement] = self.running.kept.judgements
        return found

    def state(self) -> dict[str, Any]:
        """Return what the page says of the shadow."""
        found: dict[str, Any] = self.page.state()["shadow"]
        return found

    def change(self, action: str = "promote", **body: str) -> Answer:
        """Ask the page for a promotion, or a rollback."""
        asked = {"candidate": self.promotion.shadow.candidate.sha256, **body}
        answer = self.page.ask(f"/api/{action}", "POST", asked, **ASKED)
        if answer.status == 200:
            shadow, name = self.promotion.shadow, self.promotion.shadow.candidate.path.name
            wait_until(lambda: shadow.ledger.of.candidate == name and not shadow._swapped)
            self.before = len(self.judgements) - self.seen()
        return answer

    def records(self) -> list[dict[str, Any]]:
        """Return the judgements in the log, the oldest first."""
        wait_until(lambda: len(list(judgements(self.log, Query()))) >= len(self.judgements))
        return list(judgements(self.log, Query(), newest_first=False))


def engines(folder: Path) -> None:
    """Write `cable.onnx`, and `cable2.onnx` of another size with a higher threshold."""
    write_tiny_engine(folder, "cable", threshold=1.0)
    write_tiny_engine(folder, "cable2", size=(24, 40), threshold=2.0)


@contextmanager
def shadowing(
    folder: Path,
    *words: str,
    kept: bool = True,
    sources: Sequence[Source] | None = None,
    orders: Orders | None = None,
) -> Iterator[ShadowRig]:
    """Open a line as `runtime.infer` does; `words` are more of its command line, `kept`: with a log."""
    camera = ControlledSource("cam", True)
    given = ["--engine", str(folder / "cable.onnx")] if "--recipes" not in words else []
    chosen = [] if "--shadow" in words else ["--shadow", str(folder / "cable2.onnx")]
    basic = ["--source", str(folder), "--threads", "1", "--backend", "onnxruntime"]
    parser = build_parser()
    args = parser.parse_args([*given, *basic, *chosen, *words])
    specs = recipe_arguments.specs_from(args, parser)
    if specs:
        args = recipe_arguments.first_of(specs, args).args
    with ExitStack() as stack:
        standings = standings_of(args, specs)
        recipes = open_recipes(args, specs, stack, standings)
        path = folder / "i.db"
        run = run_of(args, recipes.described(), ["cam"])
        log = Log(path) if kept else None
        if log is not None:
            log.begin(run)
        deliveries = stack.enter_context(Deliveries([] if log is None else [LogSink(log)]))
        live = [source.name for source in sources or [camera]]
        promotion = open_shadow(args, recipes, standings, run, log, live, stack, masked_for_shadow(args, live))
        assert promotion is not None
        options = ServeOptions(Address("127.0.0.1", 0), None, 10.0, AT_ONCE)
        server = stack.enter_context(Server(options, recipes, log=log, orders=orders, shadow=promotion))
        kept_ = Kept()
        inspection = Inspection(
            list(sources or [camera]),
            recipes.in_force.first.detector,
            [deliveries, server, promotion.shadow, kept_],
            InspectionOptions(frozen_after_s=0.0, run=run.id),
            orders=orders,
            recipes=recipes,
        )
        inspection._outgoing._run = run.id
        recipes.refuses = ""
        running = Started(inspection, kept_, orders)
        page = Rig(server, recipes.in_force.first.detector, args.engine)
        try:
            yield ShadowRig(promotion, recipes, running, page, path, folder, camera)
        finally:
            for source in inspection.sources:
                source.close()
            running.stop()
            promotion.shadow.close()


def note(folder: Path) -> dict[str, Any]:
    """Return what stands beside the engine."""
    found: dict[str, Any] = json.loads((folder / "cable.onnx.promoted.json").read_text())
    return found
