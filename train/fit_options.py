"""The options of a training: what `train.fit`, `train.fit_classes` and `train.ablation` have in common."""

import argparse
from dataclasses import fields, replace

from export.model.cflow import ModelConfig
from export.model.encoder import ENCODERS, IMAGENET_MEAN, check_taps
from export.model.flow import CONDITION_DIMS, hidden_units_of
from export.model.score import SCORES
from runtime.common.argument_types import count, white, whole
from runtime.common.errors import UserError
from runtime.images.bit_depth import FULL_SCALE
from runtime.images.preprocess import ReadOptions
from train.data.input_size import AUTO, choose_size, coarsest_stride
from train.data.open import Dataset
from train.data.tile_size import FORMS, TileRequest
from train.loop.schedule import SCHEDULES, Recipe

DECODERS = ("slim", "slimmest", "paper")
FINE = 4  # the coarsest stride of the taps of which every second row and column is enough; coarser ones can be factored


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of model and recipe; those left out are the schedule's."""
    model = parser.add_argument_group("model")
    names = ", ".join(ENCODERS)
    model.add_argument("--encoder", choices=list(ENCODERS), default="resnet18", metavar="NAME", help=names)
    model.add_argument(
        "--weights", default="imagenet", help="imagenet (installed by pip or downloaded), random, or a file"
    )
    model.add_argument("--taps", default="", help="comma-separated, e.g. layer1,layer2,layer3 (default: the paper's)")
    pooled = "taps whose features are averaged over 3 x 3 positions, or none (default: all; with the paper's schedule"
    pooled = f"{pooled} none)"
    model.add_argument("--pool", default=AUTO, metavar="TAPS", help=pooled)
    decoder = "slim: every second row and column of averaged taps at stride 4 or finer; slimmest: half of the channels"
    decoder = f"{decoder} of the other taps factored out early, too; paper: every position and channel (default: slim,"
    decoder = f"{decoder} with the paper's schedule paper)"
    model.add_argument("--decoder", choices=DECODERS, help=decoder)
    hidden = "share of the usual hidden units in every subnet, above 0 to 1 (default: 1)"
    model.add_argument("--hidden", type=float, default=1.0, metavar="SHARE", help=hidden)
    model.add_argument("--blocks", type=int, default=8, help="coupling blocks per tap (default: 8)")
    model.add_argument("--unconditional", action="store_true", help="a flow that does not know its position (UFLOW)")
    model.add_argument("--hard-permutation", action="store_true", help="permute channels between blocks, not rotate")
    brightest = "white of 16-bit grey files that do not say it, such as 4095 for 12 bits (default: 65535)"
    model.add_argument("--white", type=white, default=FULL_SCALE, help=brightest)
    score = "place_deviation: from what good positions show at their place; tap_deviation: the same at all places; "
    score = f"{score}deviation: the taps summed; paper: its map's maximum (default: {SCORES[0]})"
    model.add_argument("--score", choices=SCORES, default=SCORES[0], help=score)
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--schedule", choices=list(SCHEDULES), default="paper", help="what the others default to")
    recipe.add_argument("--meta-epochs", type=int, help="of one learning rate each")
    recipe.add_argument("--sub-epochs", type=int, help="passes over the images in a meta-epoch")
    recipe.add_argument("--batch", type=int, help="images whose positions are shuffled together")
    recipe.add_argument("--fiber-batch", type=int, help="positions of an optimisation step")
    recipe.add_argument("--positions", type=int, help="of an image and tap, drawn anew in each pass; 0: all")
    recipe.add_argument("--learning-rate", type=float)
    recipe.add_argument("--rotation", type=float, dest="rotation_degrees", help="largest random rotation, degrees")
    light = "vary the light: gain 1 ± this, offset ± a quarter of it of white (default: 0)"
    recipe.add_argument("--light", type=float, help=light)
    recipe.add_argument("--blur", type=float, metavar="PIXELS", help="blur by up to this deviation (default: 0)")
    recipe.add_argument("--shift", type=float, metavar="PIXELS", help="shift by up to so many pixels (default: 0)")
    noise = "noise on the features in training, of a channel's deviation (default: 0; fast: 0.2)"
    recipe.add_argument("--feature-noise", type=float, metavar="SHARE", help=noise)
    recipe.add_argument("--held-out", type=float, help="fraction of good images not trained on")
    recipe.add_argument("--false-alarm-rate", type=float, help="of the threshold chosen from good images")
    precision = "of products: highest, high (TF32 on a GPU), medium (bfloat16), auto (medium where a CPU is fast at it)"
    recipe.add_argument("--precision", dest="matmul_precision", help=precision)
    recipe.add_argument("--seed", type=int, help="of all that is drawn")


def add_size_argument(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add `--size`; `more` names what else it may be."""
    words = f"input size in pixels: 256, HEIGHTxWIDTH, {more}or auto: the images' shape, as many pixels as 256x256"
    parser.add_argument("--size", default=AUTO, help=f"{words} (auto:512: as 512x512) (default: auto)")


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what cuts frames into tiles."""
    tiles = parser.add_argument_group("tiles, for small defects in large frames (--size is then the frames' size)")
    tiles.add_argument("--tiles", metavar="SIZE", help=FORMS)
    shared = "pixels that neighbouring tiles share (default: an eighth of a tile's shorter side)"
    tiles.add_argument("--overlap", type=whole, metavar="PIXELS", help=shared)
    defect = "with --tiles auto: the smallest defect's width, such as 5px or 0.2mm"
    tiles.add_argument("--smallest-defect", metavar="LENGTH", help=defect)
    tiles.add_argument(
        "--pixel-size", metavar="LENGTH", help="what a pixel of the camera's frame shows, such as 0.05mm"
    )


def tiles_from(options: argparse.Namespace, taps: tuple[str, ...]) -> TileRequest | None:
    """Return what `add_tile_arguments`' options ask for; None for no tiles, and `UserError` for what none can be."""
    others = ("overlap", "smallest_defect", "pixel_size")
    given = {name: getattr(options, name, None) for name in others}
    if getattr(options, "tiles", None) is not None:
        return TileRequest(options.tiles, options.size, coarsest_stride(options.encoder, taps), **given)
    if alone := next((name for name in others if given[name] is not None), None):
        raise UserError(f"--{alone.replace('_', '-')} is for tiles", "no --tiles", "add --tiles 512")
    return None


def add_acceptance_argument(parser: argparse.ArgumentParser) -> None:
    """Add what takes a detector that is worse than the simplest one."""
    words = "exit with 0 even where the flow stays below a normal distribution of the same features"
    parser.add_argument("--accept-poor", action="store_true", help=words)


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what bounds the files that are read."""
    most = "most pixels of an image file (default: what a quarter of this machine's memory takes)"
    parser.add_argument("--max-pixels", type=count, metavar="N", help=most)


def recipe_from(options: argparse.Namespace) -> Recipe:
    """Return the schedule with what `add_training_arguments`' options change of it."""
    given = {field.name: getattr(options, field.name, None) for field in fields(Recipe)}
    return replace(SCHEDULES[options.schedule], **{name: value for name, value in given.items() if value is not None})


def taps_from(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the taps that the options name, the encoder's default for none; `UserError` for one it has not."""
    return check_taps(options.encoder, tuple(filter(None, map(str.strip, options.taps.split(",")))))


def pooled_from(options: argparse.Namespace, taps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the taps whose features are pooled; `UserError` for one that is not among `taps`."""
    if options.pool == AUTO:
        return pooled_by_default(taps, options.schedule)
    named = [] if options.pool == "none" else list(filter(None, map(str.strip, options.pool.split(","))))
    if unknown := [tap for tap in named if tap not in taps]:
        raise UserError(f"--pool must name taps among {', '.join(taps)}, or be none", ", ".join(unknown))
    return tuple(tap for tap in taps if tap in named)


def pooled_by_default(taps: tuple[str, ...], schedule: str) -> tuple[str, ...]:
    """Return the taps that a new detector pools: all of them, none where the paper's schedule is asked for."""
    return () if schedule == "paper" else taps


def halved_by(decoder: str, encoder: str, pooled: tuple[str, ...]) -> tuple[str, ...]:
    """Return the taps that `decoder` judges at every second row and column, among the `pooled` ones."""
    return () if decoder == "paper" else tuple(tap for tap in pooled if ENCODERS[encoder].taps[tap].stride <= FINE)


def factored_by(decoder: str, encoder: str, taps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the taps of which `decoder` factors half of the channels out."""
    return tuple(tap for tap in taps if ENCODERS[encoder].taps[tap].stride > FINE) if decoder == "slimmest" else ()


def default_config(
    encoder: str, taps: tuple[str, ...], size: tuple[int, int], schedule: str = "fast", decoder: str = ""
) -> ModelConfig:
    """Return the detector for `size` (height, width) that `train.fit` makes where nothing else is said of it."""
    pooled = pooled_by_default(taps, schedule)
    decoder = decoder or _usual_decoder(schedule)
    halved, factored = halved_by(decoder, encoder, pooled), factored_by(decoder, encoder, taps)
    return ModelConfig(encoder, taps, size, score=SCORES[0], pooled=pooled, halved=halved, factored=factored)


def hidden_units_from(options: argparse.Namespace, taps: tuple[str, ...]) -> tuple[int, ...]:
    """Return the hidden units of each tap's subnets, a multiple of 16; none where they are the usual."""
    if not 0 < options.hidden <= 1:
        raise UserError("--hidden must be above 0 and at most 1", f"{options.hidden:g}")
    if options.hidden == 1:
        return ()
    condition = 0 if options.unconditional else CONDITION_DIMS
    factored = factored_by(decoder_from(options), options.encoder, taps)
    channels = {tap: ENCODERS[options.encoder].taps[tap].channels for tap in taps}
    usual = (hidden_units_of(channels[tap], condition, tap in factored) for tap in taps)
    return tuple(max(16, 16 * round(options.hidden * units / 16)) for units in usual)


def decoder_from(options: argparse.Namespace) -> str:
    """Return which of `DECODERS` the options ask for; the paper's schedule asks for the paper's."""
    return options.decoder or _usual_decoder(options.schedule)


def _usual_decoder(schedule: str) -> str:
    return "paper" if schedule == "paper" else "slim"


def config_from(options: argparse.Namespace, dataset: Dataset, size: tuple[int, int] | None = None) -> ModelConfig:
    """Return the model that `add_training_arguments`' options describe, normalised as the dataset asks.

    Without a `size` it is the one of `--size`, which may have to look at the dataset's images. With tiles both are the
    frames' size.
    """
    taps = taps_from(options)
    read, tiles = ReadOptions(options.white, getattr(options, "max_pixels", None)), None
    if request := tiles_from(options, taps):
        named = request if size is None else replace(request, size=f"{size[0]}x{size[1]}")
        size, tiles = named.choose(dataset.train, read)
    elif size is None:
        size = choose_size(options.size, dataset.train, coarsest_stride(options.encoder, taps), read)
    pooled = pooled_from(options, taps)
    as_paper = ENCODERS[options.encoder].mean == IMAGENET_MEAN  # another encoder is lost on the paper's pixels
    return ModelConfig(
        options.encoder,
        taps,
        size,
        coupling_blocks=options.blocks,
        conditional=not options.unconditional,
        soft_permutation=not options.hard_permutation,
        mean=dataset.mean if as_paper else (),
        std=dataset.std if as_paper else (),
        seed=options.seed or 0,
        score=options.score,
        white=options.white,
        pooled=pooled,
        halved=halved_by(decoder_from(options), options.encoder, pooled),
        hidden_units=hidden_units_from(options, taps),
        factored=factored_by(decoder_from(options), options.encoder, taps),
        tiles=tiles,
    )
