#!/usr/bin/env bash
# A stream may change its picture size on the way: a camera that is set anew, a recording put together from two.
# OpenCV 5.0.0 scales every later picture to the size of the first one, and so bends its aspect ratio; 4.12.0 gives the
# last picture before the change again and again (its scaler says "Slice parameters ... are invalid" on stderr). In both
# read() succeeds, the width and height that can be asked for stay the first ones, and no property tells.
#
# Seen on x86-64 with H.264 in MPEG-TS, 20 frames of 320x240 and 20 of 640x360 with a disc that moves; in 5.0.0 the
# disc of the second half is an ellipse, as high as 4/3 of its width:
#     opencv-python-headless 4.12.0.88   40 frames of 320x240, 1 different in the second half
#     opencv-python-headless 5.0.0.93    40 frames of 320x240, 20 different in the second half, height by width 1.33
#
# Fails if either behaves otherwise. Needs the program ffmpeg, Python 3.10 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
disc="geq=lum='if(lt(hypot(X-W/3-N*4,Y-H/2),H/4),235,16)':cb=128:cr=128"
for size in 320x240 640x360; do
    ffmpeg -nostdin -loglevel error -f lavfi -i "color=black:size=$size:rate=10,$disc" -frames:v 20 -pix_fmt yuv420p \
        -c:v libx264 -f mpegts - >> "$work/both.ts"
done
cat > "$work/read.py" <<'PYTHON'
import sys

import cv2

capture, pictures = cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG), []
while True:
    ok, picture = capture.read()
    if not ok:
        break
    pictures.append(picture)
sizes = {(picture.shape[1], picture.shape[0]) for picture in pictures}
said = (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
different = len({picture.tobytes() for picture in pictures[20:]})
white = pictures[-1][..., 1] > 128
shape = white.any(axis=1).sum() / white.any(axis=0).sum()
print(f"OpenCV {cv2.__version__}: {len(pictures)} frames of {sizes}, said to be {said}")
print(f"    second half: {different} different, the disc's height by its width {shape:.2f}")
assert len(pictures) == 40 and sizes == {(320, 240)} and said == (320, 240), "no longer as described"
assert different == int(sys.argv[2]) and (different == 1 or abs(shape - 4 / 3) < 0.05), "no longer as described"
PYTHON
for release in 4.12.0.88:1 5.0.0.93:20; do
    "${PYTHON:-python3}" -m venv --clear "$work/env"
    "$work/env/bin/python" -m pip install --quiet "opencv-python-headless==${release%:*}"
    "$work/env/bin/python" "$work/read.py" "$work/both.ts" "${release#*:}"
done
