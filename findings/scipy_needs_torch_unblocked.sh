#!/usr/bin/env bash
# SciPy 1.17.1 does not need PyTorch, yet `import scipy.stats` ends with an AttributeError in an environment without it
# where PyTorch is blocked as Python documents it: sys.modules["torch"] = None, which makes `import torch` raise
# ModuleNotFoundError. SciPy looks whether the name is in sys.modules and then takes what stands there for the package.
# CuPy and JAX can be blocked that way. To show that code runs without PyTorch, an import hook (sys.meta_path) works.
#
# Seen: torch: AttributeError 'NoneType' object has no attribute 'Tensor'; cupy, jax, hook: imported.
#
# Fails if it is otherwise. Needs Python 3.11 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet 'scipy==1.17.1' 'numpy==2.3.5'
blocked() { "$work/env/bin/python" -c "
import sys
sys.modules['$1'] = None
try:
    import scipy.stats
    print('$1: imported')
except Exception as error:
    print('$1:', type(error).__name__, error)
"; }
for name in torch cupy jax; do blocked "$name" | tee -a "$work/said"; done
"$work/env/bin/python" - <<'PYTHON' | tee -a "$work/said"
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Blocked())
import scipy.stats

print("hook: imported")
PYTHON
grep -q "^torch: AttributeError 'NoneType' object has no attribute 'Tensor'$" "$work/said"
for name in cupy jax hook; do grep -q "^$name: imported$" "$work/said"; done
