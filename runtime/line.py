"""An inspection with everything open that a command line asks for: sources, engine, sinks, servers, triggers, page.

arguments ─▶ detector, sources ─▶ outputs (sinks, controllers' servers) ─▶ inspection ─▶ page, trigger inputs
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.checks import arguments as check_arguments
from runtime.common.notices import LAST_WORD_S, say, write
from runtime.controller import arguments as controller_arguments
from runtime.drift import arguments as drift_arguments
from runtime.engines.backends import load_options
from runtime.inputs import arguments as input_arguments
from runtime.serve import arguments as serve_arguments
from runtime.shadow import arguments as shadow_arguments
from runtime.sinks import arguments as sink_arguments
from runtime.sources import arguments as source_arguments
from runtime.triggers.counts import TriggerCounts

if TYPE_CHECKING:
    from runtime.common.interrupts import StopSignals
    from runtime.controller.modbus import ModbusServer
    from runtime.controller.opcua import OpcuaServer
    from runtime.detector import Detector
    from runtime.drift.watch import DriftWatch
    from runtime.images.view import View
    from runtime.inspection import Inspection
    from runtime.recipes.book import Recipes
    from runtime.recipes.file import RecipeSpec
    from runtime.recipes.promoted import Standing
    from runtime.records.log import Log
    from runtime.records.run import RunRecord
    from runtime.shadow.promotion import Promotion
    from runtime.sinks.delivery import Deliveries
    from runtime.sinks.judgement import Sink
    from runtime.sources.frame import Source
    from runtime.triggers.orders import Orders

PATIENCE_S = 30.0  # that frames of files wait for a sink that is slow; those of cameras never wait


def open_line(args: argparse.Namespace, stack: contextlib.ExitStack, specs: "Sequence[RecipeSpec]" = ()) -> "Line":
    """Open engine, sources, sinks, servers and page; `stack` closes them.

    With recipes, `args` is the command line as it is with the first of them that is in force.
    """
    from runtime.common.interrupts import StopSignals  # here, so that --help needs neither NumPy nor Pillow
    from runtime.common.keyboard import key_reader
    from runtime.common.large_blocks import give_back_large_blocks
    from runtime.recipes.promoted import standings_of

    standings = standings_of(args, specs)
    recipes = open_recipes(args, specs, stack, standings)
    from runtime.inspection import Inspection, InspectionOptions

    if any(recipe.tiles for recipe in recipes.all):
        give_back_large_blocks()
    detector = recipes.in_force.first.detector
    signals = stack.enter_context(StopSignals())
    sources = _open_sources(args, recipes, stack)
    orders = input_arguments.orders_from(args)
    outputs = _open_outputs(args, recipes, sources, orders is not None, stack)
    check_arguments.open_gate(args, recipes, stack)
    shadow = _open_shadow(args, recipes, standings, sources, outputs, stack)
    deliveries = outputs.deliveries
    decide = input_arguments.decide_from(args)
    options = InspectionOptions(
        args.limit, args.batch_cameras, frozen_after_s=args.frozen_after, decide=decide, run=outputs.record.id
    )
    inspection = stack.enter_context(
        Inspection(sources, detector, [deliveries], options, orders=orders, recipes=recipes)
    )
    if shadow is not None:
        inspection.add(shadow.shadow)
    drift = _open_drift(args, inspection, outputs, stack)
    _open_servers(args, inspection, outputs, orders, stack, shadow, drift)

    def stop() -> None:
        inspection.stop()
        deliveries.hurry()  # whoever sends the signal waits, and kills in the end

    signals.call(stop)
    pressed = stack.enter_context(key_reader()) if outputs.live else lambda: ""
    line = Line(inspection, outputs, args.json, signals, pressed, detector.session.device, orders, shadow, drift)
    outputs.tell(line.status)
    return line


def _load(args: argparse.Namespace) -> "Detector":
    """Load the engine. While a library reads, hashes and compiles an ONNX, this thread imports what comes after.

    A plan is loaded in this very thread, to which its CUDA context belongs.
    """
    from concurrent.futures import ThreadPoolExecutor

    from runtime.detector import load

    words = {"threads": args.threads, "threshold": args.threshold, **load_options(args)}
    if isinstance(args.engine, Path) and args.engine.suffix == ".plan":
        return load(args.engine, **words)
    with ThreadPoolExecutor(1, "load") as beside:
        loading = beside.submit(load, args.engine, **words)
        import runtime.inspection
        import runtime.sinks.console
        import runtime.sinks.delivery  # noqa: F401
        from runtime.images.opencv import opencv

        opencv()
        return loading.result()


def open_recipes(
    args: argparse.Namespace,
    specs: "Sequence[RecipeSpec]",
    stack: contextlib.ExitStack,
    standings: "Mapping[str, Standing]",
) -> "Recipes":
    """Open what judges: the recipes, the one to start with in force, or the one engine of a run without any.

    `standings` say which engines were promoted.
    """
    from runtime.recipes.promoted import by_standing

    if specs:
        return _open_specs(args, [by_standing(spec, standings) for spec in specs], stack)
    if standings[""].steps:
        args = argparse.Namespace(**{**vars(args), "engine": standings[""].path, "threshold": None})
    detector = stack.enter_context(_load(args))
    from runtime.recipes.book import Recipes
    from runtime.recipes.recipe import Recipe

    plain = Recipe.plain(detector, args.engine, source_arguments.views_from(args))
    plain.check()
    return Recipes([plain])


def _open_specs(args: argparse.Namespace, specs: "Sequence[RecipeSpec]", stack: contextlib.ExitStack) -> "Recipes":
    from runtime.recipes.arguments import first_of
    from runtime.recipes.book import NOT_BEGUN, Recipes
    from runtime.recipes.opened import open_recipes as opened_by
    from runtime.records.options import settings_of

    opened = opened_by(
        specs,
        shadow_arguments.loader(args),
        source_arguments.views_from,
        lambda of: settings_of(of, source_arguments.names_from(of)),
        stack,
    )
    first = first_of(list(specs), args).name
    say(f"recipe: {first} at the start")
    recipes = Recipes(opened, first)
    recipes.refuses = NOT_BEGUN  # a controller's server listens before cameras and audit are there
    return recipes


def _open_sources(args: argparse.Namespace, recipes: "Recipes", stack: contextlib.ExitStack) -> "list[Source]":
    opened = source_arguments.sources_from(args, recipes.in_force.first.detector.sidecar.white)
    sources = [stack.enter_context(source) for source in opened]
    recipes.try_cameras(sources)
    return sources


@dataclass(frozen=True, eq=False)
class Outputs:
    """Where verdicts go: `sinks`, and the `controllers`' servers, through `deliveries`; `record` is this run's.

    `live`: a source is. `unread` says that stdout is the only output and its reader has gone.
    """

    record: "RunRecord"
    live: bool
    sinks: "list[Sink]"
    controllers: "list[OpcuaServer | ModbusServer]"
    deliveries: "Deliveries"
    unread: Callable[[], bool]

    @property
    def log(self) -> "Log | None":
        """The inspection log among the sinks; None without."""
        from runtime.sinks.inspection_log import log_among

        return log_among(self.sinks)

    def tell(self, status: Callable[[], str]) -> None:
        """Let the console's one line end with `status`."""
        from runtime.sinks.console import ConsoleSink

        for sink in self.sinks:
            if isinstance(sink, ConsoleSink):
                sink.status = status


def _open_outputs(
    args: argparse.Namespace,
    recipes: "Recipes",
    sources: "Sequence[Source]",
    triggered: bool,
    stack: contextlib.ExitStack,
) -> Outputs:
    from runtime.records.options import run_of
    from runtime.sinks.console import ConsoleSink
    from runtime.sinks.delivery import Deliveries

    names, live = [source.name for source in sources], any(source.live for source in sources)
    stack.enter_context(sink_arguments.only_writer(args))
    detector = recipes.in_force.first.detector
    controllers = controller_arguments.servers_from(args, names, recipes)
    for controller in controllers:
        stack.enter_context(controller)
    run = run_of(args, recipes.described(), names)
    if recipes.names:
        run = replace(run, settings=recipes.in_force.audited)
    sinks = sink_arguments.sinks_from(args, detector.sidecar.score_maximum, len(sources), run)
    if not args.json:
        sinks.append(ConsoleSink(len(sources) > 1, live))
    alone = len(sinks) == 1 and args.serve is None and not controllers

    def unread() -> bool:
        return alone and getattr(sinks[0], "gone", False)

    patience_s = 0.0 if live or triggered else PATIENCE_S
    deliveries = stack.enter_context(
        Deliveries([*sinks, *controllers], patience_s=patience_s, say=lambda text: None if unread() else say(text))
    )
    return Outputs(run, live, sinks, controllers, deliveries, unread)


def _open_shadow(
    args: argparse.Namespace,
    recipes: "Recipes",
    standings: "Mapping[str, Standing]",
    sources: "Sequence[Source]",
    outputs: Outputs,
    stack: contextlib.ExitStack,
) -> "Promotion | None":
    """Return the candidate beside the line, where one was asked for; `stack` closes it, before the outputs."""
    live = [source.name for source in sources if source.live]
    masked = masked_for_shadow(args, [source.name for source in sources])
    return shadow_arguments.open_shadow(args, recipes, standings, outputs.record, outputs.log, live, stack, masked)


def masked_for_shadow(args: argparse.Namespace, names: Sequence[str]) -> "dict[str, View]":
    """Return what a candidate sees of the sources of these names by `--shadow-mask`; empty without it."""
    if args.shadow_mask is None:
        return {}
    views = source_arguments.views_from(argparse.Namespace(**{**vars(args), "mask": args.shadow_mask}))
    return dict(zip(names, views, strict=True))


def _open_drift(
    args: argparse.Namespace, inspection: "Inspection", outputs: Outputs, stack: contextlib.ExitStack
) -> "DriftWatch | None":
    """Watch the live sources for drift, and let MQTT and the controllers' servers know of its alarms."""
    log, live = outputs.log, {source.name for source in inspection.sources if source.live}
    watch = drift_arguments.watch_from(args, live, inspection.recipes, None if log is None else log.enter, stack)
    if watch is None:
        return None
    from runtime.sinks.mqtt import MqttSink

    for sink in outputs.sinks:
        if isinstance(sink, MqttSink):
            watch.tell_to(sink.drift)
    for controller in outputs.controllers:
        watch.tell_to(controller.board.drift)
    inspection.add(watch)
    return watch


def _open_servers(
    args: argparse.Namespace,
    inspection: "Inspection",
    outputs: Outputs,
    orders: "Orders | None",
    stack: contextlib.ExitStack,
    shadow: "Promotion | None",
    drift: "DriftWatch | None",
) -> None:
    """Open the page, let the controllers' servers watch the inspection, and take triggers from all of them."""
    from runtime.serve.changes import Changes

    for controller in outputs.controllers:
        controller.board.watch(inspection.states)
    log, recipes = outputs.log, inspection.recipes
    asked = (args, recipes, inspection.states, outputs.deliveries.counts, log, orders, shadow, drift)
    page = serve_arguments.server_from(*asked)
    recipes.told.append(Changes(log, lambda error: say(f"the audit has no entry: {error}")).recipe)
    if page is not None:
        inspection.add(stack.enter_context(page))
    recipes.refuses = ""
    if args.recipe_topic is not None:
        stack.enter_context(input_arguments.recipes_input(args, recipes))
    if orders is not None:
        for trigger_input in input_arguments.inputs_from(args, [*outputs.sinks, *outputs.controllers, page]):
            stack.enter_context(trigger_input).start(orders.take)


@dataclass(frozen=True, eq=False)
class Line:
    """A run with everything open.

    `pressed` gives the keys pressed since its last call; `device` is what judges.
    """

    inspection: "Inspection"
    outputs: Outputs
    json: bool
    signals: "StopSignals"
    pressed: Callable[[], str]
    device: str
    orders: "Orders | None" = None
    shadow: "Promotion | None" = None
    drift: "DriftWatch | None" = None

    def status(self) -> str:
        """Return what the console's one line ends with."""
        dropped = sum(self.inspection.dropped().values())
        return f"  {self.inspection.summary.fps:.1f} fps  {dropped} dropped  (q ends)"

    def look(self) -> None:
        """Tell the controllers that it goes on; end it where somebody asked, or nobody takes its verdicts any more."""
        for controller in self.outputs.controllers:
            controller.board.beat()
        if "q" in self.pressed() or self.outputs.unread():
            self.inspection.stop()

    def close_and_tell(self) -> bool:
        """Finish what is under way and print the summary; return whether every frame was judged and delivered.

        Frames that a live source dropped for newer ones are no lack; a source that is lost by now is one.
        """
        lost = self.inspection.lost()
        on_the_way = [state.lost_on_the_way for state in self.inspection.states() if state.lost_on_the_way]
        self.inspection.close()
        if self.shadow is not None:
            self.shadow.shadow.close()  # while the log is still open
        if self.drift is not None:
            self.drift.close()  # while the log still takes its last word
        self.outputs.deliveries.close()
        if self.outputs.unread():
            return True
        summary = self.inspection.summary
        triggers = TriggerCounts() if self.orders is None else self.orders.counts()
        if summary.frames or triggers.taken:
            text = summary.text(self.device, self.inspection.dropped())
            text += f"\n{triggers.text()}" if self.orders is not None else ""
            text += f"\n{self.shadow.shadow.text()}" if self.shadow is not None else ""
            write(sys.stderr if self.json else sys.stdout, f"{text}\n", LAST_WORD_S)
        for sentence in on_the_way:
            say(sentence, LAST_WORD_S)
        missed = [counts for counts in self.outputs.deliveries.counts() if counts.undelivered]
        for counts in missed:
            say(counts.text(), LAST_WORD_S)
        return not (missed or lost or summary.verdicts["none"] or not triggers.complete)
