#!/usr/bin/env bash
# TensorRT's lean runtime 11.4.0.106 on a machine without an NVIDIA driver: `Runtime(logger)` returns an object and raises
# nothing. That CUDA did not start (error 35) is said to the logger only. So a program that asks whether it got a runtime
# goes on with one that is none: look at what was logged while it was made. The module has no Builder, so that "the
# library is there" does not mean that it builds.
#
# Seen: logged ERROR: ... CUDA initialization failure with error: 35 ...; returned: Runtime; builder: False
#
# Fails if it is otherwise. Needs Python 3.11 to 3.13, a package index, and no NVIDIA driver.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet tensorrt-lean-cu13-libs==11.4.0.106 tensorrt-lean-cu13-bindings==11.4.0.106
"$work/env/bin/python" - <<'PYTHON' | tee "$work/said"
import os
import sys

import tensorrt_lean_bindings as lean


class Log(lean.ILogger):
    def __init__(self):
        lean.ILogger.__init__(self)

    def log(self, severity, text):
        print(f"logged {severity.name}: {text}")


log = Log()
runtime = lean.Runtime(log)
print(f"returned: {type(runtime).__name__}; builder: {hasattr(lean, 'Builder')}")
sys.stdout.flush()
os._exit(0)  # it is looked at, and neither used nor taken down
PYTHON
grep -q "^logged ERROR: .*CUDA initialization failure with error: 35" "$work/said"
grep -q "^returned: Runtime; builder: False$" "$work/said"
