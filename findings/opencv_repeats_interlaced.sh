#!/usr/bin/env bash
# OpenCV 5.0.0 gives the same picture for every frame of an interlaced video, and says that each was read; 4.12.0 gives
# the frames. FFmpeg 8's converter refuses interlaced pictures where the target is not ("Cannot convert interlaced to
# progressive frames or vice versa"), and OpenCV passes the buffer on as it was. With OPENCV_FFMPEG_LOGLEVEL=16 it
# prints that line for every frame (to stdout); nothing that can be asked of the capture tells.
#
# Seen on x86-64 with H.264 in MPEG-TS, 60 frames:
#     opencv-python-headless 4.12.0.88   60 frames, 60 different
#     opencv-python-headless 5.0.0.93    60 frames, 1 different
#
# Fails if either behaves otherwise. Needs the program ffmpeg, Python 3.10 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ffmpeg -nostdin -loglevel error -f lavfi -i testsrc2=size=320x240:rate=25 -frames:v 60 -pix_fmt yuv420p \
    -c:v libx264 -x264-params interlaced=1 "$work/interlaced.ts"
cat > "$work/count.py" <<'PYTHON'
import sys

import cv2

capture, pictures, frames = cv2.VideoCapture(sys.argv[1]), set(), 0
while True:
    ok, picture = capture.read()
    if not ok:
        break
    frames += 1
    pictures.add(picture.tobytes())
print(f"OpenCV {cv2.__version__}: {frames} frames, {len(pictures)} different")
assert (frames, len(pictures)) == (60, int(sys.argv[2])), "no longer as described"
PYTHON
for release in 4.12.0.88:60 5.0.0.93:1; do
    "${PYTHON:-python3}" -m venv --clear "$work/env"
    "$work/env/bin/python" -m pip install --quiet "opencv-python-headless==${release%:*}"
    OPENCV_FFMPEG_LOGLEVEL=-8 "$work/env/bin/python" "$work/count.py" "$work/interlaced.ts" "${release#*:}"
done
