#!/usr/bin/env bash
# kornia-rs 0.2.0's resize does not widen its filter when it makes an image smaller, as cv2.resize does not: it reads the
# two pixels beside each new position and no others. Pillow's "bilinear" has a triangle as wide as the reduction, and so
# has torchvision's resize with antialias. A detector that was trained with one sees fine texture that is not there with
# the other. Both are called bilinear.
#
# Seen, 480 x 640 to 256 x 256, of 255 grey levels:
#     image                     deviation of the result: kornia-rs, Pillow    largest difference
#     noise                     47.7, 22.7                                    115
#     stripes of 2 and 2 pixels 100.7, 27.7                                   92
# and kornia-rs is within 1 grey level of bilinear interpolation by its definition.
#
# Fails if it is otherwise. Needs Python 3.11 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet 'kornia-rs==0.2.0' 'pillow==13.0.0' 'numpy==2.4.6'
cat > "$work/resize.py" <<'PYTHON'
import kornia_rs
import numpy as np
from PIL import Image

SIZE = (256, 256)
noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
stripes = np.broadcast_to((np.arange(640) // 2 % 2 * 255).astype(np.uint8)[None, :, None], (480, 640, 3)).copy()


def between_neighbours(image):
    """Bilinear interpolation between the two nearest pixels in each direction, in float64."""
    for axis, size in enumerate(SIZE):
        length = image.shape[axis]
        position = ((np.arange(size) + 0.5) * length / size - 0.5).clip(0, length - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (position - low).reshape([-1 if i == axis else 1 for i in range(3)])
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


print(f"{'image':8} {'kornia-rs':>10} {'Pillow':>7} {'largest difference':>19}")
for name, image in (("noise", noise), ("stripes", stripes)):
    theirs = kornia_rs.resize(image, SIZE, interpolation="bilinear").astype(int)
    pillow = np.asarray(Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BILINEAR)).astype(int)
    apart = np.abs(theirs - pillow).max()
    print(f"{name:8} {theirs.std():>10.1f} {pillow.std():>7.1f} {apart:>19}")
    assert np.abs(theirs - between_neighbours(image.astype(float))).max() <= 1, "another filter by now"
    assert theirs.std() > 1.5 * pillow.std() and apart > 60, "it smooths by now"
PYTHON
"$work/env/bin/python" "$work/resize.py"
