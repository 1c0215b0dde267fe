"""The nodes of the OPC UA server: names, types and values. Names are those of OPC 40100-1 where it has the thing.

A node's id is its path as text, in the namespace `NAMESPACE`: `VisionSystem.Heartbeat`, `VisionSystem.Source1.Verdict`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from runtime.controller.answer import WORDS, Answer, Why
from runtime.controller.asking import Handshake

NAMESPACE = "urn:cflow-edge:controller"
INDEX = 2  # of that namespace: the first after those of OPC UA and of the application
ROOT = "VisionSystem"
METHOD = "Inspect"
START = f"{ROOT}.Trigger.Start"  # unless another node was chosen (`runtime.controller.trigger_address`)
RECIPE_METHOD = "SelectRecipe"


@dataclass(frozen=True)
class Node:
    """A variable below `ROOT` or, for a source, below `ROOT.SourceN`; `kind` is the name of an OPC UA type."""

    name: str
    kind: str
    writable: bool = False


LINE = (
    Node("SoftwareVersion", "String"),
    Node("Engine", "String"),
    Node("ModelHash", "String"),
    Node("State", "String"),
    Node("StateReason", "String"),
    Node("Recipe", "String"),
    Node("RecipeRequest", "String", writable=True),
    Node("Drift", "Boolean"),
    Node("DriftReason", "String"),
    Node("Heartbeat", "UInt32"),
    Node("ControllerHeartbeat", "UInt32", writable=True),
    Node("Trigger.PartId", "String", writable=True),
    Node("Trigger.Start", "Boolean", writable=True),
    Node("Trigger.Ready", "Boolean"),
    Node("Trigger.Busy", "Boolean"),
    Node("Trigger.Done", "Boolean"),
    Node("Trigger.Refused", "Boolean"),
    Node("Trigger.Reason", "String"),
)
SOURCE = (
    Node("Name", "String"),
    Node("Verdict", "String"),
    Node("VerdictCode", "UInt16"),
    Node("Reason", "String"),
    Node("ReasonCode", "UInt16"),
    Node("Score", "Double"),
    Node("Threshold", "Double"),
    Node("PartId", "String"),
    Node("Recipe", "String"),
    Node("ModelHash", "String"),
    Node("Late", "Boolean"),
    Node("CreationTime", "DateTime"),
    Node("Total", "UInt32"),
    Node("Good", "UInt32"),
    Node("Anomalous", "UInt32"),
    Node("None", "UInt32"),
    Node("LateTotal", "UInt32"),
    Node("Sequence", "UInt32"),  # the last: who is told of changes is told of it after all others
)


@dataclass(frozen=True)
class About:
    """What judges, and what does not change while the line runs; `recipe` is the name of the one in force."""

    engine: str = ""
    model_hash: str = ""
    version: str = ""
    recipe: str = ""


def line_values(
    about: About, stopped: Why, heartbeat: int, ready: bool, asked: Handshake, drifts: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the values of `LINE` that this program gives, by name; `ready`: triggers are taken from here.

    `drifts` are the drift alarms that stand, in words.
    """
    return {
        "SoftwareVersion": about.version,
        "Engine": about.engine,
        "ModelHash": about.model_hash,
        "Recipe": about.recipe,
        "State": _state(stopped, ready, asked),
        "StateReason": WORDS[stopped] if stopped else "",
        "Drift": bool(drifts),
        "DriftReason": "; ".join(drifts),
        "Heartbeat": heartbeat,
        "Trigger.Ready": ready and not stopped,
        "Trigger.Busy": asked.busy,
        "Trigger.Done": asked.done,
        "Trigger.Refused": asked.refused,
        "Trigger.Reason": asked.reason,
    }


def _state(stopped: Why, ready: bool, asked: Handshake) -> str:
    """Return the state as OPC 40100-1 names it."""
    if stopped == Why.STOPPED:
        return "Halted"
    if stopped:
        return "Error"
    if not ready:
        return "ContinuousExecution"
    return "SingleExecution" if asked.busy else "Ready"


def source_values(name: str, answer: Answer) -> dict[str, Any]:
    """Return the values of `SOURCE`, by name."""
    totals = answer.totals
    return {
        "Name": name,
        "Verdict": answer.verdict,
        "VerdictCode": answer.code,
        "Reason": answer.reason,
        "ReasonCode": int(answer.why),
        "Score": math.nan if answer.score is None else float(answer.score),
        "Threshold": float(answer.threshold),
        "PartId": answer.part,
        "Recipe": answer.recipe,
        "ModelHash": answer.engine_sha256,
        "Late": answer.late,
        "CreationTime": datetime.fromtimestamp(answer.answered_s, timezone.utc),
        "Total": totals.total,
        "Good": totals.good,
        "Anomalous": totals.anomalous,
        "None": totals.none,
        "LateTotal": totals.late,
        "Sequence": answer.sequence,
    }
