#!/usr/bin/env bash
# Aravis sets a GenICam feature to a value far out of the range that the camera itself states, without an error: whoever
# asks for a width of 100000 pixels where the camera has 2048 gets no word, and reads back 100000. Range checks are
# there (`set_range_check_policy`), and off unless they are asked for.
#
# Seen with Aravis' own simulated camera, Debian 12 (gir1.2-aravis-0.8 0.8.26-1), PyGObject 3.50.2:
#     as it comes     width 1 to 2048, asked for 100000: no error, now 100000
#     with the check  width 1 to 2048, asked for 100000: an error that names the limit, still 512
#
# Fails if that changes. Needs Debian's gir1.2-aravis-0.8, libgirepository1.0-dev, libcairo2-dev, pkg-config and gcc
# (PyGObject is built from its source), Python 3.10 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet "PyGObject==3.50.2"
cat > "$work/width.py" <<'PYTHON'
import gi

gi.require_version("Aravis", "0.8")
from gi.repository import Aravis, GLib

Aravis.enable_interface("Fake")
device = Aravis.Camera.new("Fake_1").get_device()


def ask(what: str) -> tuple[bool, int]:
    device.set_integer_feature_value("Width", 512)
    limits = device.get_integer_feature_bounds("Width")
    try:
        device.set_integer_feature_value("Width", 100000)
        error = "no error"
    except GLib.Error as raised:
        error = f"an error ({raised.message})"
    now = device.get_integer_feature_value("Width")
    print(f"{what}: width {limits.min} to {limits.max}, asked for 100000: {error}, now {now}")
    return error == "no error", now


assert ask("as it comes") == (True, 100000), "no longer as described"
device.set_range_check_policy(Aravis.RangeCheckPolicy.ENABLE)
assert ask("with the check") == (False, 512), "no longer as described"
PYTHON
"$work/env/bin/python" "$work/width.py"
