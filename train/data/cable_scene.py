"""What the synthetic cable looks like, as numbers: a scene, how scenes vary, and what each defect does to one.

Every length is in sides of the image and every point is (x, y) from the image's top left corner, so
that a scene has no resolution. Colours are RGB in [0, 1]. Nothing here draws: see `train.data.cable_renderer`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Colour = tuple[float, float, float]

GREEN, YELLOW, BLUE, BROWN = (0.20, 0.50, 0.22), (0.88, 0.78, 0.20), (0.17, 0.35, 0.68), (0.46, 0.27, 0.16)
STRAND_RINGS = 3  # one strand in the middle, then 6, 12 and 18 around it
ROTATION_DEG = 2.0  # a cable lies within this angle of its fixture, either way
POSITION_JITTER = 0.005  # of the image's side, standard deviation
TWIST_SPREAD = 0.06  # radians, standard deviation: a stranding machine lays every bundle alike, give or take


@dataclass(frozen=True)
class Strand:
    """One copper wire seen end on; `offset` is from the centre of its core."""

    offset: Point
    radius: float
    brightness: float


@dataclass(frozen=True)
class Core:
    """An insulated conductor: `stripe` is the second colour of the insulation, where it has one."""

    centre: Point
    radius: float
    conductor_radius: float
    colour: Colour
    stripe: Colour | None
    stripe_angle: float  # radians
    strands: tuple[Strand, ...]


@dataclass(frozen=True)
class LooseStrand:
    """A copper wire that lies across the cable's face along `path`."""

    path: tuple[Point, ...]
    radius: float
    brightness: float


@dataclass(frozen=True)
class Opening:
    """A place where material is gone: a dark hole within a closed `outline`."""

    outline: tuple[Point, ...]


@dataclass(frozen=True)
class Scene:
    """One cable before the camera, whole or defective.

    `light_angle` is where the light comes from; `light_slope` and `gain` say how the brightness varies
    over the image and between images. `texture_seed` fixes the grain of the surfaces.
    """

    centre: Point
    radius: float
    cavity_radius: float
    sheath: Colour
    background: float
    light_angle: float
    light_slope: float
    gain: float
    texture_seed: int
    cores: tuple[Core, ...]
    loose_strands: tuple[LooseStrand, ...] = ()
    openings: tuple[Opening, ...] = ()

    @property
    def light(self) -> Point:
        """The direction towards the light: a vector of length 1 in the plane of the image."""
        return math.cos(self.light_angle), math.sin(self.light_angle)


@dataclass(frozen=True)
class Defect:
    """A defective scene, and the cores that count as defective whole (missing or exchanged)."""

    scene: Scene
    whole_cores: tuple[Core, ...] = ()


def polar(centre: Point, radius: float, angle: float) -> Point:
    """Return the point at `radius` from `centre` in the direction `angle` (radians, clockwise from the x axis)."""
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a good cable: place, rotation, radii, colours and light vary a little."""
    centre = (0.5 + rng.normal(0, POSITION_JITTER), 0.5 + rng.normal(0, POSITION_JITTER))
    rotation = math.radians(rng.uniform(-ROTATION_DEG, ROTATION_DEG))
    radius = 0.425 * rng.uniform(0.99, 1.01)
    cavity_radius = 0.87 * radius
    grey = rng.uniform(0.27, 0.31)
    return Scene(
        centre=centre,
        radius=radius,
        cavity_radius=cavity_radius,
        sheath=(grey, grey * 1.01, grey * 1.04),
        background=rng.uniform(0.62, 0.67),
        light_angle=math.radians(rng.uniform(-125, -105)),
        light_slope=rng.uniform(0.04, 0.12),
        gain=rng.uniform(0.95, 1.05),
        texture_seed=int(rng.integers(2**32)),
        cores=_random_cores(rng, centre, cavity_radius, rotation),
    )


def _random_cores(rng: np.random.Generator, centre: Point, cavity_radius: float, rotation: float) -> tuple[Core, ...]:
    # Three equal circles that touch each other and an outer one: r (1 + 2/sqrt 3) = R.
    touching = cavity_radius / (1 + 2 / math.sqrt(3))
    insulations: tuple[tuple[Colour, Colour | None], ...] = ((GREEN, YELLOW), (BLUE, None), (BROWN, None))
    cores = []
    for index, (colour, stripe) in enumerate(insulations):
        radius = touching * rng.uniform(0.955, 0.98)
        angle = rotation + math.radians(-90 + 120 * index)
        conductor_radius = radius * rng.uniform(0.60, 0.64)
        tint = rng.uniform(0.94, 1.06, 3)
        cores.append(
            Core(
                centre=polar(centre, cavity_radius - touching, angle),
                radius=radius,
                conductor_radius=conductor_radius,
                colour=_tinted(colour, tint),
                stripe=_tinted(stripe, tint) if stripe else None,
                stripe_angle=rotation + rng.normal(0, 0.06),
                strands=_random_strands(rng, conductor_radius),
            )
        )
    return tuple(cores)


def _tinted(colour: Colour, tint: NDArray[np.float64]) -> Colour:
    red, green, blue = (float(value) for value in np.clip(np.asarray(colour) * tint, 0, 1))
    return red, green, blue


def _random_strands(rng: np.random.Generator, conductor_radius: float) -> tuple[Strand, ...]:
    radius = conductor_radius / (2 * STRAND_RINGS + 1)
    twist = rng.normal(0, TWIST_SPREAD)
    strands = []
    for ring in range(STRAND_RINGS + 1):
        count = max(1, 6 * ring)
        for position in range(count):
            angle = twist * (1 + 0.1 * ring) + 2 * math.pi * position / count
            x, y = polar((0.0, 0.0), 1.98 * radius * ring, angle)
            offset = (x + rng.normal(0, 0.05 * radius), y + rng.normal(0, 0.05 * radius))
            strands.append(Strand(offset, radius * rng.uniform(0.92, 1.02), rng.uniform(0.88, 1.04)))
    return tuple(strands)


def _replace_core(scene: Scene, index: int, core: Core) -> Scene:
    return replace(scene, cores=(*scene.cores[:index], core, *scene.cores[index + 1 :]))


def bend_strand(scene: Scene, rng: np.random.Generator) -> Defect:
    """Pull one to three outer strands of a core out of their bundle and across the insulation."""
    index = int(rng.integers(len(scene.cores)))
    core = scene.cores[index]
    outward = math.atan2(core.centre[1] - scene.centre[1], core.centre[0] - scene.centre[0])
    direction = outward + rng.uniform(-1.2, 1.2)
    nearest = sorted(core.strands, key=lambda s: -s.offset[0] * math.cos(direction) - s.offset[1] * math.sin(direction))
    bent = nearest[: int(rng.integers(1, 4))]
    loose = tuple(_loose_strand(core, strand, direction, rng) for strand in bent)
    kept = tuple(strand for strand in core.strands if strand not in bent)
    return Defect(replace(_replace_core(scene, index, replace(core, strands=kept)), loose_strands=loose))


def _loose_strand(core: Core, strand: Strand, direction: float, rng: np.random.Generator) -> LooseStrand:
    start = (core.centre[0] + strand.offset[0], core.centre[1] + strand.offset[1])
    heading = direction + rng.normal(0, 0.25)
    length = core.radius * rng.uniform(0.8, 1.3)
    knee = polar(start, 0.55 * length, heading)
    tip = polar(knee, 0.55 * length, heading + rng.choice((-1, 1)) * rng.uniform(0.2, 0.9))
    steps = np.linspace(0, 1, 11)
    path = tuple(_bezier(start, knee, tip, float(t)) for t in steps)
    return LooseStrand(path, strand.radius * 0.95, 1.1)


def _bezier(start: Point, knee: Point, tip: Point, t: float) -> Point:
    weights = ((1 - t) ** 2, 2 * t * (1 - t), t**2)
    points = (start, knee, tip)
    return (
        sum(w * p[0] for w, p in zip(weights, points, strict=True)),
        sum(w * p[1] for w, p in zip(weights, points, strict=True)),
    )


def remove_core(scene: Scene, rng: np.random.Generator) -> Defect:
    """Leave one core out: its place in the sheath is empty."""
    index = int(rng.integers(len(scene.cores)))
    cores = scene.cores[:index] + scene.cores[index + 1 :]
    return Defect(replace(scene, cores=cores), (scene.cores[index],))


def swap_cores(scene: Scene, rng: np.random.Generator) -> Defect:
    """Exchange the places of two cores."""
    first, second = sorted(int(i) for i in rng.choice(len(scene.cores), 2, replace=False))
    a, b = scene.cores[first], scene.cores[second]
    swapped = _replace_core(scene, first, replace(b, centre=a.centre))
    swapped = _replace_core(swapped, second, replace(a, centre=b.centre))
    return Defect(swapped, (a, b, swapped.cores[first], swapped.cores[second]))


def cut_insulation(scene: Scene, rng: np.random.Generator) -> Defect:
    """Cut a ragged notch from the outer edge of a core's insulation, or of the sheath, inwards."""
    in_sheath = rng.random() < 1 / 3
    if in_sheath:
        centre, radius, angle = scene.centre, scene.radius, rng.uniform(-math.pi, math.pi)
        depth = (scene.radius - scene.cavity_radius) * rng.uniform(0.8, 1.0)
    else:
        core = scene.cores[int(rng.integers(len(scene.cores)))]
        outward = math.atan2(core.centre[1] - scene.centre[1], core.centre[0] - scene.centre[0])
        centre, radius, angle = core.centre, core.radius, outward + rng.uniform(-2.0, 2.0)
        depth = (core.radius - core.conductor_radius) * rng.uniform(0.8, 1.0)
    return Defect(replace(scene, openings=(_notch(centre, radius, angle, depth, rng),)))


def _notch(centre: Point, radius: float, angle: float, depth: float, rng: np.random.Generator) -> Opening:
    half_angle = depth / radius * rng.uniform(0.45, 0.7)  # as seen from the centre
    lean = rng.uniform(-0.6, 0.6) * half_angle
    profile = ((0.0, -1.0), (0.35, -0.75), (0.7, -0.5), (1.0, -0.1), (0.95, 0.2), (0.6, 0.5), (0.3, 0.8), (0.0, 1.0))
    corners = [
        polar(
            centre,
            radius - depth * down * rng.uniform(0.92, 1.0),
            angle + lean * down + half_angle * across * rng.uniform(0.75, 1.15),
        )
        for down, across in profile
    ]
    # Along the outer edge the outline follows the arc, so that no sliver of material is left standing.
    corners += [polar(centre, radius, angle + half_angle * across) for across in np.linspace(0.9, -0.9, 5)]
    return Opening(tuple(corners))


def poke_insulation(scene: Scene, rng: np.random.Generator) -> Defect:
    """Poke a dark hole into the insulation of a core."""
    core = scene.cores[int(rng.integers(len(scene.cores)))]
    width = core.radius - core.conductor_radius
    middle = polar(core.centre, core.conductor_radius + width * rng.uniform(0.45, 0.55), rng.uniform(0, 2 * math.pi))
    radius = width * rng.uniform(0.34, 0.46)
    angles = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    phases = rng.uniform(0, 2 * math.pi, 2)
    radii = radius * (1 + 0.14 * np.cos(2 * angles + phases[0]) + 0.07 * np.cos(3 * angles + phases[1]))
    outline = tuple(polar(middle, float(r), float(a)) for r, a in zip(radii, angles, strict=True))
    return Defect(replace(scene, openings=(Opening(outline),)))


DEFECTS: dict[str, Callable[[Scene, np.random.Generator], Defect]] = {
    "bent_strand": bend_strand,
    "cut_insulation": cut_insulation,
    "missing_core": remove_core,
    "poke_insulation": poke_insulation,
    "swapped_cores": swap_cores,
}
