"""Draw a synthetic cable: noise-free surfaces by distance fields, then the camera's light and noise.

A pixel is covered by a shape as far as the signed distance from its centre to the outline says, which
gives clean edges without supersampling; only ragged outlines are rasterised finer and averaged.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from train.data.cable_scene import DEFECTS, Core, LooseStrand, Opening, Point, Scene, random_scene

Array = NDArray[np.floating[Any]]  # float32 all through; numpy's stubs cannot tell

COPPER = np.array((0.86, 0.52, 0.33), np.float32)
DARK = np.array((0.06, 0.06, 0.065), np.float32)  # the bottom of a hole and of the gaps between strands
FILLER = np.array((0.175, 0.17, 0.165), np.float32)  # what lies behind the cores
NOISE_LEVELS = 2.0  # standard deviation of the sensor noise at full brightness, of 255
VISIBLE_LEVELS = 2.0  # a smaller change of the noise-free picture drowns in the noise and is no defect
OUTLINE_SUPERSAMPLING = 4


def render(rng: np.random.Generator, size: int, defect: str | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Render one picture of a cable and the mask of its defect.

    Returns an RGB image (size, size, 3) and a mask (size, size) that is true exactly where the defect
    changes the noise-free picture by more than `VISIBLE_LEVELS`, or where a core is missing or
    exchanged. The same `rng` state gives the same cable and the same noise with and without a defect.
    """
    scene_seed, defect_seed, noise_seed = (int(seed) for seed in rng.integers(2**63, size=3))
    scene = random_scene(np.random.default_rng(scene_seed))
    picture = draw(scene, size)
    mask = np.zeros((size, size), np.bool_)
    if defect is not None:
        flawed = DEFECTS[defect](scene, np.random.default_rng(defect_seed))
        good, picture = picture, draw(flawed.scene, size)
        mask = np.abs(picture - good).max(axis=2) > VISIBLE_LEVELS / 255
        for core in flawed.whole_cores:
            mask |= _distance(_pixel_centres(size), core.centre, size) <= core.radius * size
    return _expose(picture, np.random.default_rng(noise_seed)), mask


def draw(scene: Scene, size: int) -> Array:
    """Draw `scene` without noise: float32 RGB in [0, 1], shape (size, size, 3)."""
    points = _pixel_centres(size)
    texture = np.random.default_rng(scene.texture_seed)
    image = _background(scene, points, texture)
    _draw_sheath(image, scene, points, texture)
    for core in scene.cores:
        _draw_core(image, scene, core, points)
    for opening in scene.openings:
        _draw_opening(image, opening)
    for strand in scene.loose_strands:
        _draw_loose_strand(image, scene, strand, points)
    lit: Array = np.clip(image * _illumination(scene, points)[..., None], 0, 1)
    return lit


def _expose(picture: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    # Shot noise grows with the square root of the light, read noise is always there.
    deviation = NOISE_LEVELS / 255 * np.sqrt(0.25 + 0.75 * picture)
    noisy = picture + deviation * rng.standard_normal(picture.shape, np.float32)
    levels: NDArray[np.uint8] = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return levels


def _pixel_centres(size: int) -> Array:
    """Return (x, y) of every pixel's centre in sides of the image, shape (size, size, 2)."""
    along = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.stack(np.meshgrid(along, along), axis=-1)


def _distance(points: Array, centre: Point, size: int) -> Array:
    """Return every point's distance from `centre` in pixels."""
    offset = (points - np.asarray(centre, np.float32)) * size
    return np.hypot(offset[..., 0], offset[..., 1])


def _coverage(signed_distance: Array) -> Array:
    """Return how much of a pixel a shape covers, from the distance to its outline in pixels (negative inside)."""
    covered: Array = np.clip(0.5 - signed_distance, 0, 1)
    return covered


def _paint(image: Array, coverage: Array, colour: Array) -> None:
    """Lay `colour` over `image` in place where `coverage` says."""
    image += coverage[..., None] * (colour - image)


def _toward_light(scene: Scene, points: Array, centre: Point) -> Array:
    """Return the cosine between each point's direction from `centre` and the light's, in [-1, 1]."""
    offset = points - np.asarray(centre, np.float32)
    cosine: Array = (offset @ np.array(scene.light, np.float32)) / (np.hypot(offset[..., 0], offset[..., 1]) + 1e-6)
    return cosine


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Return noise of unit deviation whose grains are about size / cells pixels wide."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _background(scene: Scene, points: Array, texture: np.random.Generator) -> Array:
    size = len(points)
    grey = scene.background + 0.008 * _smooth_noise(texture, size, 12) + 0.006 * _smooth_noise(texture, size, 90)
    light_x, light_y = scene.light
    away = (scene.centre[0] - 0.022 * light_x, scene.centre[1] - 0.022 * light_y)
    outside = np.maximum(_distance(points, away, size) / size - scene.radius, 0)
    shadow = 1 - 0.45 * np.exp(-((outside / 0.022) ** 2))
    return np.repeat((grey * shadow)[..., None], 3, axis=2)


def _draw_sheath(image: Array, scene: Scene, points: Array, texture: np.random.Generator) -> None:
    size = len(points)
    distance = _distance(points, scene.centre, size)
    outside, beyond_wall = distance - scene.radius * size, distance - scene.cavity_radius * size
    toward_light = _toward_light(scene, points, scene.centre)
    grain = 1 + 0.035 * _smooth_noise(texture, size, 120)
    rim = 0.35 * _ridge(outside, 0.012 * size) * toward_light
    lip = -0.25 * _ridge(beyond_wall, 0.010 * size) * toward_light
    shadow_of_wall = 1 - 0.6 * np.exp(np.minimum(beyond_wall, 0) / (0.025 * size))
    _paint(image, _coverage(outside), (grain * (1 + rim + lip))[..., None] * np.array(scene.sheath, np.float32))
    _paint(image, _coverage(beyond_wall), (grain * shadow_of_wall)[..., None] * FILLER)


def _ridge(signed_distance: Array, width: float) -> Array:
    """Return 1 on an outline, falling to 0 within about two `width`s (pixels) on both sides."""
    height: Array = np.exp(-((signed_distance / width) ** 2))
    return height


def _window(points: Array, centre: Point, reach: float) -> tuple[slice, slice]:
    """Return the rows and columns of the square of half-width `reach` (in sides) around `centre`."""
    size = len(points)
    low = [max(int((c - reach) * size) - 1, 0) for c in centre]
    high = [min(int((c + reach) * size) + 2, size) for c in centre]
    return slice(low[1], high[1]), slice(low[0], high[0])


def _draw_core(image: Array, scene: Scene, core: Core, points: Array) -> None:
    size = len(points)
    window = _window(points, core.centre, core.radius)
    _draw_insulation(image[window], scene, core, points[window], size)
    _draw_strands(image, scene, core, points)


def _draw_insulation(image: Array, scene: Scene, core: Core, points: Array, size: int) -> None:
    distance = _distance(points, core.centre, size)
    toward_light = _toward_light(scene, points, core.centre)
    rim = _ridge(distance - core.radius * size, 0.014 * size) * (0.05 + 0.30 * toward_light)
    lip = _ridge(distance - core.conductor_radius * size, 0.010 * size) * -0.25 * toward_light
    insulation = _insulation_colour(core, points, size) * (1 + rim + lip)[..., None]
    _paint(image, _coverage(distance - core.radius * size), insulation)
    _paint(image, _coverage(distance - core.conductor_radius * 1.03 * size), DARK)


def _insulation_colour(core: Core, points: Array, size: int) -> Array:
    colour = np.broadcast_to(np.asarray(core.colour, np.float32), (*points.shape[:2], 3))
    if core.stripe is None:
        return colour
    offset = (points - np.asarray(core.centre, np.float32)) * size
    # A straight band through the middle: the stripes on both sides of the insulation.
    normal = np.array((-math.sin(core.stripe_angle), math.cos(core.stripe_angle)), np.float32)
    across = np.abs(offset @ normal)
    striped = np.array(colour)
    _paint(striped, _coverage(across - 0.33 * core.radius * size), np.asarray(core.stripe, np.float32))
    return striped


def _draw_strands(image: Array, scene: Scene, core: Core, points: Array) -> None:
    """Draw the ends of all strands of a core at once: every pixel belongs to the strand whose centre is nearest."""
    size = len(points)
    window = _window(points, core.centre, core.conductor_radius * 1.1)
    points, image = points[window] * size, image[window]
    centres = (np.array(core.centre, np.float32) + np.array([s.offset for s in core.strands], np.float32)) * size
    dx, dy = points[..., :1] - centres[:, 0], points[..., 1:] - centres[:, 1]  # (rows, columns, strands)
    nearest = (dx * dx + dy * dy).argmin(axis=2)
    radius = np.array([s.radius for s in core.strands], np.float32)[nearest] * size
    brightness = np.array([s.brightness for s in core.strands], np.float32)[nearest]
    offset = points - centres[nearest]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    light = np.array(scene.light, np.float32)
    height = np.sqrt(np.clip(1 - distance / radius, 0, 1))
    shade = brightness * (0.62 + 0.38 * height + 0.22 * np.clip(offset @ light / radius, -1, 1))
    _paint(image, _coverage(distance - radius), shade[..., None] * COPPER)


def _draw_opening(image: Array, opening: Opening) -> None:
    size = len(image)
    fine = OUTLINE_SUPERSAMPLING * size
    raster = Image.new("L", (fine, fine))
    ImageDraw.Draw(raster).polygon([(x * fine, y * fine) for x, y in opening.outline], fill=255)
    coverage = np.asarray(raster.reduce(OUTLINE_SUPERSAMPLING), np.float32) / 255
    _paint(image, coverage, DARK)


def _draw_loose_strand(image: Array, scene: Scene, strand: LooseStrand, points: Array) -> None:
    size = len(points)
    path = np.array(strand.path, np.float32)
    middle = path.mean(axis=0)
    reach = float(np.abs(path - middle).max() + 4 * strand.radius)
    window = _window(points, (float(middle[0]), float(middle[1])), reach)
    points, image = points[window], image[window]
    radius = strand.radius * size
    light = np.array(scene.light, np.float32)
    shadow = _path_offset(points + 0.5 * strand.radius * light, path) * size
    _paint(image, 0.55 * _coverage(np.hypot(shadow[..., 0], shadow[..., 1]) - radius), DARK)
    offset = _path_offset(points, path) * size
    distance = np.hypot(offset[..., 0], offset[..., 1])
    height = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
    shade = strand.brightness * (0.5 + 0.45 * height + 0.3 * np.clip(offset @ light / radius, -1, 1))
    _paint(image, _coverage(distance - radius), shade[..., None] * COPPER)


def _path_offset(points: Array, path: Array) -> Array:
    """Return the vector from the nearest point of a polyline to each of `points`, shape (rows, columns, 2)."""
    start, step = path[:-1], np.diff(path, axis=0)
    x, y = points[..., :1] - start[:, 0], points[..., 1:] - start[:, 1]  # (rows, columns, segments)
    along = np.clip((x * step[:, 0] + y * step[:, 1]) / (step**2).sum(axis=1), 0, 1)
    x, y = x - along * step[:, 0], y - along * step[:, 1]
    nearest = (x * x + y * y).argmin(axis=2)[..., None]
    return np.concatenate([np.take_along_axis(x, nearest, axis=2), np.take_along_axis(y, nearest, axis=2)], axis=2)


def _illumination(scene: Scene, points: Array) -> Array:
    """Return the light that falls on each point: a slope toward the lamp and a little vignetting."""
    offset = points - np.float32(0.5)
    slope = offset @ np.array(scene.light, np.float32)
    vignette = 1 - 0.12 * (offset**2).sum(-1)
    light: Array = scene.gain * (1 + scene.light_slope * slope) * vignette
    return light
