"""Every TensorRT attribute that the code names is in the recordings, in exactly the releases that are meant.

The sources are read, not run: a branch that no test takes is looked at too. A variable's name tells its class.
"""

import ast

import pytest

from tests.support.fake_tensorrt import EVERY, FLAGS_FOR_TYPES, LEAN, RECORDED, RTX, RTX_1_4, V8, V10_3, V10_13
from tests.support.paths import ROOT

SOURCES = sorted([*ROOT.glob("export/trt/*.py"), *ROOT.glob("runtime/engines/trt/*.py")])
CLASS_OF = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "layer": "ILayer",
    "source": "ILayer",
    "tensor": "ITensor",
    "output": "ITensor",
    "frames": "ITensor",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "parser": "OnnxParser",
    "error": "ParserError",
    "refitter": "Refitter",
    "runtime": "Runtime",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_execution": "IExecutionContext",
    "inspector": "EngineInspector",
}
MODULES = ("module", "library")
# names that mean something else in one file
EXCEPT = {
    ("runtime/engines/trt/engine.py", "config"): "IRuntimeConfig",
    ("runtime/engines/trt/engine.py", "source"): None,  # a buffer
    ("runtime/engines/trt/engine.py", "frames"): None,  # an array
    ("runtime/engines/trt/session.py", "frames"): None,
    ("runtime/engines/trt/plan.py", "parser"): "OnnxParserRefitter",
    ("export/trt/options.py", "parser"): None,  # argparse's
    ("runtime/engines/trt/session.py", "_engine"): None,  # LoadedEngine
    ("runtime/engines/trt/session.py", "engine"): None,
    ("runtime/engines/trt/pipeline.py", "engine"): None,
    ("runtime/engines/trt/pipeline.py", "_engine"): None,
    ("runtime/engines/trt/session.py", "error"): None,  # an exception
    ("runtime/engines/trt/session.py", "library"): None,  # a Library
    ("runtime/engines/trt/libraries.py", "library"): None,
    ("runtime/engines/trt/libraries.py", "error"): None,
    ("export/trt/compat.py", "error"): None,
}
ALL = frozenset(RECORDED)
WITH_TARGETS = frozenset({RTX_1_4, RTX})
SINCE_10 = ALL - {V8}
WITH_PRECISION = frozenset({*FLAGS_FOR_TYPES, RTX_1_4})
# where the code asks first: the releases that have the name
ONLY_IN = {
    ("IBuilderConfig", "progress_monitor"): SINCE_10,
    ("IBuilderConfig", "num_compute_capabilities"): WITH_TARGETS,
    ("IBuilderConfig", "set_compute_capability"): WITH_TARGETS,
    ("ILayer", "precision"): WITH_PRECISION,
    ("ILayer", "precision_is_set"): WITH_PRECISION,
    ("ILayer", "set_output_type"): WITH_PRECISION,
    ("IExecutionContext", "is_stream_capturable"): WITH_TARGETS,
    ("ICudaEngine", "create_runtime_config"): frozenset(SINCE_10 - {V10_3}),
    ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"): WITH_TARGETS,
    ("OnnxParserRefitter", "refit_from_file"): SINCE_10,
    ("OnnxParserRefitter", "num_errors"): SINCE_10,
    ("OnnxParserRefitter", "get_error"): SINCE_10,
    ("ParserError", "node_name"): SINCE_10,
    ("ParserError", "node_operator"): SINCE_10,
    ("module", "IProgressMonitor"): SINCE_10,
    ("module", "OnnxParserRefitter"): SINCE_10,
    ("module", "ComputeCapability"): WITH_TARGETS,
    ("module", "DynamicShapesKernelSpecializationStrategy"): WITH_TARGETS,
    ("DynamicShapesKernelSpecializationStrategy", "EAGER"): WITH_TARGETS,
}
NOT_RECORDED = {"__version__"}  # the packages add it, not the bindings


def owner_of(node, file):
    """Return the class, enumeration or "module" that an attribute is read of, None for anything that is no TensorRT."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
    if (file, name) in EXCEPT:
        return EXCEPT[file, name]
    if name in MODULES:
        return "module"
    if isinstance(node, ast.Attribute) and owner_of(node.value, file) == "module":
        return name  # an enumeration: module.DataType.FLOAT
    return CLASS_OF.get(name)


def touched(sources):
    found = {}
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr not in NOT_RECORDED:
                owner = owner_of(node.value, path.relative_to(ROOT).as_posix())
                if owner is not None and not node.attr.startswith("__"):
                    found.setdefault((owner, node.attr), f"{path.name}:{node.lineno}")
    return found


def releases_with(owner, name):
    return {version for version in RECORDED if has(EVERY[version], owner, name)}


def has(record, owner, name):
    if owner == "module":
        return name in record["enums"] or name in record["classes"]
    return name in (record["enums"] | record["classes"]).get(owner, ())


TOUCHED = touched(SOURCES)


def test_the_walk_finds_what_is_touched():
    assert {("IExecutionContext", "execute_async_v3"), ("IBuilderConfig", "max_aux_streams")} <= set(TOUCHED)
    assert {("DataType", "FLOAT"), ("module", "Refitter"), ("BuilderFlag", "TF32")} <= set(TOUCHED)
    assert {owner for owner, _ in TOUCHED} >= set(CLASS_OF.values()) | {"OnnxParserRefitter", "IRuntimeConfig"}
    assert set(ONLY_IN) <= set(TOUCHED)


@pytest.mark.parametrize("key", sorted(TOUCHED), ids=".".join)
def test_what_is_touched_is_there(key):
    missing_from = ONLY_IN.get(key, ALL) ^ releases_with(*key)
    assert not missing_from, f"{'.'.join(key)} at {TOUCHED[key]}: {sorted(missing_from)}"


def test_the_releases_differ_where_the_table_says():
    assert releases_with("BuilderFlag", "FP16") == {V8, V10_3, V10_13, RTX_1_4}
    assert releases_with("BuilderFlag", "STRIP_PLAN") == SINCE_10
    assert releases_with("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") == SINCE_10
    assert releases_with("IBuilderConfig", "max_aux_streams") == ALL


def test_the_lean_runtime_has_what_opens_a_plan():
    """What it lacks is asked for first, or is for plans without their weights, which it is never given."""
    used = touched(sorted(ROOT.glob("runtime/engines/trt/*.py")))
    assert ("ICudaEngine", "create_execution_context") in used
    lacks = {key for key in used if not has(EVERY[LEAN], *key)}
    asked_first = {
        ("module", "DynamicShapesKernelSpecializationStrategy"),
        ("DynamicShapesKernelSpecializationStrategy", "EAGER"),
        ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
        ("IExecutionContext", "is_stream_capturable"),
    }
    assert {key for key in lacks if "OnnxParserRefitter" not in key} == asked_first
