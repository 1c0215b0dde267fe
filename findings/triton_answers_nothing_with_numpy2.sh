#!/usr/bin/env bash
# Triton's Python backend that was built for NumPy 1 (2.51) answers with tensors of no bytes under NumPy 2: the request
# succeeds, names, types and shapes are right, and there is no data behind them. Nothing is logged. Under NumPy 1 the
# same model answers with its data. Whoever reads the shape alone takes an empty answer for one.
#
# Seen with nvidia-pytriton 0.7.0 (Triton 2.51.0):
#     numpy 1.26.4: status 200, shape [1, 3], 12 bytes
#     numpy 2.2.6:  status 200, shape [1, 3], 0 bytes
#
# Fails if that changes. Needs Linux x86_64, CPython 3.10 to 3.12 with its shared library, and a package index.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 -- "-$server" 2>/dev/null; rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
python="$work/env/bin/python"
"$python" -m pip install --quiet --no-deps "nvidia-pytriton==0.7.0"
mkdir -p "$work/models/thirds/1"
cat > "$work/models/thirds/config.pbtxt" <<'CONFIG'
name: "thirds"
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [1, 3] }
output { name: "y" data_type: TYPE_FP32 dims: [1, 3] }
CONFIG
cat > "$work/models/thirds/1/model.py" <<'PYTHON'
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [utils.get_input_tensor_by_name(request, "x").as_numpy() / 3 for request in requests]
        return [utils.InferenceResponse(output_tensors=[utils.Tensor("y", array)]) for array in arrays]
PYTHON
cat > "$work/ask.py" <<'PYTHON'
import json
import sys
import time
import urllib.error
import urllib.request

address, numpy, wanted = f"http://127.0.0.1:{sys.argv[1]}/v2", sys.argv[2], int(sys.argv[3])
for _ in range(600):
    try:
        urllib.request.urlopen(f"{address}/health/ready", timeout=5)
        break
    except (urllib.error.URLError, OSError):
        time.sleep(0.1)
x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}
asked = {"inputs": [x], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
with urllib.request.urlopen(f"{address}/models/thirds/infer", json.dumps(asked).encode(), timeout=60) as answer:
    body = answer.read()
    length = int(answer.headers.get("Inference-Header-Content-Length", len(body)))  # none where no bytes follow
    shape, found = json.loads(body[:length])["outputs"][0]["shape"], len(body) - length
print(f"numpy {numpy}: status {answer.status}, shape {shape}, {found} bytes")
assert shape == [1, 3] and found == wanted, f"no longer as described: {wanted} bytes"
PYTHON
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
version=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
cp -r "$site/pytriton/tritonserver/backends" "$work/backends"
cp "$site/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" "$work/backends/python/"
for case in "1.26.4 12" "2.2.6 0"; do
    read -r numpy bytes <<< "$case"
    "$python" -m pip install --quiet --no-deps "numpy==$numpy"
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    PATH="$work/env/bin:$PATH" LD_LIBRARY_PATH="$site/nvidia_pytriton.libs:$libraries" setsid \
        "$site/pytriton/tritonserver/bin/tritonserver" --model-repository "$work/models" \
        --backend-directory "$work/backends" --http-address 127.0.0.1 --http-port "$port" \
        --allow-grpc false --allow-metrics false > "$work/log" 2>&1 &
    server=$!
    "$python" "$work/ask.py" "$port" "$numpy" "$bytes"
    kill -TERM -- "-$server" && wait "$server" || true
    server=
done
