#!/usr/bin/env bash
# OpenVINO 2026.4.1 on the CPU turns NaN into 0 in Relu and in Min(x, 0), and into infinity in Exp; ONNX Runtime 1.32.0
# keeps it, as IEEE 754 arithmetic does. A network whose weights are broken so gives plausible results: behind a ReLU
# nothing tells that they are.
#
# Seen on x86-64 with AVX-512:
#     operator   ONNX Runtime 1.32.0  OpenVINO 2026.4.1
#     Relu       nan                  0.0
#     Min(x,0)   nan                  0.0
#     Exp        nan                  inf
#     Tanh, Abs, Mul and ReduceSum keep NaN in both: what has to arrive must go that way.
#
# Fails if an operator behaves otherwise. Needs Python 3.10 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$work/nan.py" <<'PYTHON'
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import openvino

BODIES = {
    "Relu": "y = Relu(x)",
    "Tanh": "y = Tanh(x)",
    "Exp": "y = Exp(x)",
    "Min(x,0)": "zero = Constant<value = float[1] {0.0}>()\n y = Min(x, zero)",
    "Abs": "y = Abs(x)",
    "Mul": "y = Mul(x, x)",
    "ReduceSum": "y = ReduceSum<keepdims = 1>(x)",
}
SWALLOWED = {"Relu", "Exp", "Min(x,0)"}
x = np.linspace(-1, 1, 64, dtype=np.float32)
x[20] = np.nan
core = openvino.Core()
wrong = []
print(f"{'operator':10} {'ONNX Runtime':>14} {'OpenVINO':>14}")
for name, body in BODIES.items():
    shape = "float[1]" if name == "ReduceSum" else "float[64]"
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ngraph (float[64] x) => ({shape} y) {{ {body} }}'
    model = onnx.parser.parse_model(text).SerializeToString()
    place = 0 if name == "ReduceSum" else 20
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    plain = session.run(None, {"x": x})[0][place]
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    found = compiled([x])[0][place]
    print(f"{name:10} {plain:>14} {found:>14}")
    if not np.isnan(plain) or np.isnan(found) == (name in SWALLOWED):
        wrong.append(name)
assert not wrong, f"no longer as described: {wrong}"
PYTHON
"$work/env/bin/python" "$work/nan.py"
