#!/usr/bin/env bash
# onnxruntime-ep-nv-tensorrt-rtx 0.5.0 changes its own installed folder when it is imported: it makes links to its
# libraries there, which the wheel does not list. Uninstalling leaves them behind, and a container or a user that may not
# write there gets no links. It also needs ONNX Runtime without asking pip for it.
#
# Seen: 0 links before the import, 4 after; after pip uninstall the folder is still there; required: nothing.
#
# Fails if it is otherwise. Needs Python 3.11 to 3.13 and a package index; 0.3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
python=$work/env/bin/python
"$python" -m pip install --quiet onnxruntime==1.32.0 onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0
folder=$("$python" -c "import importlib.util as u; print(u.find_spec('onnxruntime_ep_nv_tensorrt_rtx').submodule_search_locations[0])")
links() { find "$folder" -type l | wc -l; }
before=$(links)
"$python" -c "import onnxruntime_ep_nv_tensorrt_rtx"
after=$(links)
"$python" -c "
import importlib.metadata as m
asked = [one for one in m.requires('onnxruntime-ep-nv-tensorrt-rtx-cu13') or [] if 'extra ==' not in one]
print('required:', asked or 'nothing')" | tee "$work/said"
"$python" -m pip uninstall --quiet --yes onnxruntime-ep-nv-tensorrt-rtx-cu13
echo "links: $before before the import, $after after; after pip uninstall: $(links) left"
[ "$before" -eq 0 ] && [ "$after" -gt 0 ] && [ "$(links)" -eq "$after" ]
grep -q "^required: nothing$" "$work/said"
