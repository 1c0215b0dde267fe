"""An inspection with everything open that a command line asks for: sources, engine, sinks, servers, triggers, page.

arguments ─▶ detector, sources ─▶ outputs (sinks, controllers' servers) ─▶ inspection ─▶ page, trigger inputs
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.common.notices import LAST_WORD_S, say, write
from runtime.controller import arguments as controller_arguments
from runtime.engines.backends import load_options
from runtime.inputs import arguments as input_arguments
from runtime.serve import arguments as serve_arguments
from runtime.sinks import arguments as sink_arguments
from runtime.sources import arguments as source_arguments
from runtime.triggers.counts import TriggerCounts

if TYPE_CHECKING:
    from runtime.common.interrupts import StopSignals
    from runtime.controller.modbus import ModbusServer
    from runtime.controller.opcua import OpcuaServer
    from runtime.detector import Detector
    from runtime.images.view import View
    from runtime.inspection import Inspection
    from runtime.sinks.delivery import Deliveries
    from runtime.sinks.judgement import Sink
    from runtime.sources.frame import Source
    from runtime.triggers.orders import Orders

PATIENCE_S = 30.0  # that frames of files wait for a sink that is slow; those of cameras never wait


def open_line(args: argparse.Namespace, stack: contextlib.ExitStack) -> "Line":
    """Open engine, sources, sinks, servers and page; `stack` closes them."""
    from runtime.common.interrupts import StopSignals  # here, so that --help needs neither NumPy nor Pillow
    from runtime.common.keyboard import key_reader

    detector = stack.enter_context(_load(args))
    from runtime.inspection import Inspection, InspectionOptions

    signals = stack.enter_context(StopSignals())
    sources, views = _open_sources(args, detector, stack)
    live = any(source.live for source in sources)
    orders = input_arguments.orders_from(args)
    outputs = _open_outputs(args, detector, sources, orders is not None, stack)
    deliveries = outputs.deliveries
    decide = input_arguments.decide_from(args)
    options = InspectionOptions(
        args.limit, args.batch_cameras, frozen_after_s=args.frozen_after, decide=decide, run=outputs.run
    )
    inspection = stack.enter_context(Inspection(sources, detector, [deliveries], options, views, orders))
    _open_servers(args, detector, inspection, outputs, orders, stack)

    def stop() -> None:
        inspection.stop()
        deliveries.hurry()  # whoever sends the signal waits, and kills in the end

    signals.call(stop)
    pressed = stack.enter_context(key_reader()) if live else lambda: ""
    line = Line(inspection, outputs, args.json, signals, pressed, detector.session.device, orders)
    outputs.tell(line.status)
    return line


def _load(args: argparse.Namespace) -> "Detector":
    """Load the engine. While a library reads, hashes and compiles an ONNX, this thread imports what comes after.

    A plan is loaded in this very thread, to which its CUDA context belongs.
    """
    from concurrent.futures import ThreadPoolExecutor

    from runtime.detector import load

    words = {"threads": args.threads, "threshold": args.threshold, **load_options(args)}
    if args.engine.suffix == ".plan":
        return load(args.engine, **words)
    with ThreadPoolExecutor(1, "load") as beside:
        loading = beside.submit(load, args.engine, **words)
        import runtime.inspection
        import runtime.sinks.console
        import runtime.sinks.delivery  # noqa: F401
        from runtime.images.opencv import opencv

        opencv()
        return loading.result()


def _open_sources(
    args: argparse.Namespace, detector: "Detector", stack: contextlib.ExitStack
) -> "tuple[list[Source], list[View]]":
    views = source_arguments.views_from(args)
    for view in views:
        view.check_map(detector.session.input_size, detector.sidecar.score)
    opened = source_arguments.sources_from(args, detector.sidecar.white)
    return [stack.enter_context(source) for source in opened], views


@dataclass(frozen=True, eq=False)
class Outputs:
    """Where verdicts go: `sinks`, and the `controllers`' servers, through `deliveries`; `run` is this run's id.

    `unread` says that stdout is the only output and its reader has gone.
    """

    run: str
    sinks: "list[Sink]"
    controllers: "list[OpcuaServer | ModbusServer]"
    deliveries: "Deliveries"
    unread: Callable[[], bool]

    def tell(self, status: Callable[[], str]) -> None:
        """Let the console's one line end with `status`."""
        from runtime.sinks.console import ConsoleSink

        for sink in self.sinks:
            if isinstance(sink, ConsoleSink):
                sink.status = status


def _open_outputs(
    args: argparse.Namespace,
    detector: "Detector",
    sources: "Sequence[Source]",
    triggered: bool,
    stack: contextlib.ExitStack,
) -> Outputs:
    from runtime.records.options import run_of
    from runtime.sinks.console import ConsoleSink
    from runtime.sinks.delivery import Deliveries

    names, live = [source.name for source in sources], any(source.live for source in sources)
    stack.enter_context(sink_arguments.only_writer(args))
    controllers = controller_arguments.servers_from(args, names, detector.hashes.engine)
    for controller in controllers:
        stack.enter_context(controller)
    run = run_of(args, detector.described(), names)
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
    return Outputs(run.id, sinks, controllers, deliveries, unread)


def _open_servers(
    args: argparse.Namespace,
    detector: "Detector",
    inspection: "Inspection",
    outputs: Outputs,
    orders: "Orders | None",
    stack: contextlib.ExitStack,
) -> None:
    """Open the page, let the controllers' servers watch the inspection, and take triggers from all of them."""
    from runtime.sinks.inspection_log import log_among

    for controller in outputs.controllers:
        controller.board.watch(inspection.states)
    page = serve_arguments.server_from(
        args, detector, inspection.states, outputs.deliveries.counts, log_among(outputs.sinks), orders
    )
    if page is not None:
        inspection.add(stack.enter_context(page))
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
        self.outputs.deliveries.close()
        if self.outputs.unread():
            return True
        summary = self.inspection.summary
        triggers = TriggerCounts() if self.orders is None else self.orders.counts()
        if summary.frames or triggers.taken:
            text = summary.text(self.device, self.inspection.dropped())
            text += f"\n{triggers.text()}" if self.orders is not None else ""
            write(sys.stderr if self.json else sys.stdout, f"{text}\n", LAST_WORD_S)
        for sentence in on_the_way:
            say(sentence, LAST_WORD_S)
        missed = [counts for counts in self.outputs.deliveries.counts() if counts.undelivered]
        for counts in missed:
            say(counts.text(), LAST_WORD_S)
        return not (missed or lost or summary.verdicts["none"] or not triggers.complete)
