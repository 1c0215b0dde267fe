"""Reports with figures that are chosen by hand, for tests of what is made of them."""

from runtime.report.paper_table import rows_for
from runtime.report.schema import Conditions, Limits, Machine, Method, Report, Row, Timing, Work

METHOD = Method("python -m runtime.report", "2000-01-01T00:00:00+00:00", None, 60.0, 0, "seeded random", 5.0)
MACHINE = Machine("a device", 2, "a system", "", "2000 MHz", "", {"python": "3"})
CONDITIONS = Conditions(0.01, 0.0, None, 1.0)
LIMITS = Limits({"float32": 100.0, "int8": 400.0}, 10.0, "by hand")
PAPER_WORDS = {"encoder": "encoder only", "padim": "PaDiM", "spade": "SPADE"}


def timing(*medians_ms: float, batch: int = 1) -> Timing:
    """A round of three runs for each median."""
    return Timing(tuple((ms, 0.9 * ms, 1.2 * ms) for ms in medians_ms), batch)


def row(kind: str = "cflow", network: float | None = None, verdict: float | None = None, **changes) -> Row:
    """A row whose every round takes `network` and `verdict` milliseconds."""
    values = {
        "name": f"{kind} row",
        "kind": kind,
        "encoder": "resnet18",
        "input_size": (256, 256),
        "engine": "OpenVINO",
        "precision": "fp32",
        "device": "OpenVINO CPU",
        "file": f"{kind}.onnx",
        "size_mb": 80.0,
        "work": Work(1e9, 8e7, 2e5),
        "network": None if network is None else timing(*[network] * 6),
        "verdict": None if verdict is None else timing(*[verdict] * 6),
        "stages_ms": {} if verdict is None else {"execute": 0.9 * verdict},
        "first_verdict_s": 0.5,
        "memory_mb": 300.0,
        **changes,
    }
    word = PAPER_WORDS.get(kind, "CFLOW-AD")
    found = rows_for(str(values["encoder"]), values["input_size"])
    paper = next((candidate for candidate in found if word in candidate.model), None)
    return Row(**{"paper": paper, **values})


def report(*rows: Row, **changes) -> Report:
    """A report of these rows."""
    return Report(
        **{"method": METHOD, "machine": MACHINE, "conditions": CONDITIONS, "limits": LIMITS, **changes, "rows": rows}
    )
