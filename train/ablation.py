"""What each part of the model is worth on one class, in a table like the paper's Table 2.

    python -m train.ablation --data mvtec/screw --weights FILE --schedule fast --out-dir DIR

Compared are 8 and 4 coupling blocks, all taps and all but the finest, flows that know their position (CFLOW) and
flows that do not (UFLOW), soft and hard permutations: the paper's full model, one change at a time from it, and 4
blocks with hard permutations on the fewer taps; with --all every combination.

Features are computed once (where images are not varied, as with --rotation 0; else anew for each pass and decoder),
and every distinct decoder is trained once: "2 taps" is the 3-tap detector without the finest tap's term, because
decoders know nothing of each other.
A variant's minutes are the sum over its decoders, trained elsewhere in the table or not; on a CPU each has a thread.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.images.labelled import check_classes
from export.model.cflow import ModelConfig
from runtime.common.argument_types import output_file, output_folder
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_json
from runtime.common.program import program_name
from runtime.images.preprocess import ReadOptions
from train.comparing.decoder_pool import Keep, train_decoders
from train.comparing.decoder_run import Features
from train.comparing.results import Judge, format_results, result_json
from train.comparing.variants import FlowKind, all_variants, default_variants
from train.data.input_size import check_size
from train.data.open import Dataset, ImageCache, open_dataset, split_held_out
from train.fit import build_model
from train.fit_options import add_size_argument, add_training_arguments, config_from, recipe_from
from train.judging.paper_figures import FigureRow, class_rows, find_class, format_rows
from train.loop.feature_store import FeatureStore, VariedFeatures, stored_bytes
from train.loop.precision import settle
from train.loop.processes import one_process
from train.loop.schedule import Recipe

DATA = "MVTec-style class with test/ and ground_truth/, or a list of images: CSV, JSON"
SCHEMA = "cflow-edge/ablation/1"
PAPER_ABLATION_ENCODER = "wide_resnet50_2"  # the one whose blocks, taps and flow the paper's Table 2 varies


def prepare(
    dataset: Dataset, config: ModelConfig, recipe: Recipe, weights: str, memory_gb: float, device: torch.device
) -> tuple[Features, dict[str, Any]]:
    """Compute the features of train, held-out and test images; return them and what every result depends on.

    `weights` is the encoder's source as on the command line. Raises `UserError` where the features would take
    more than `memory_gb`.
    """
    train, held_out = split_held_out(dataset.train, recipe.held_out, recipe.seed)
    test = [image.path for image in dataset.test]
    varied = recipe.varies_images
    stored = len(held_out) + len(test) + (0 if varied else len(train))
    needed = stored_bytes(config, stored) / 1e9
    if needed > memory_gb:
        cure = "give more, a smaller --size, or coarser --taps"
        raise UserError(f"features must fit --memory {memory_gb:g} (GB)", f"{needed:.3g} GB of them", cure)
    read = ReadOptions(config.white)
    images = ImageCache(train, config.input_size, read=read)
    model, loaded = build_model(config, weights, images)

    def store(paths: list[Path]) -> FeatureStore:
        return FeatureStore(model, ImageCache(paths, config.input_size, limit_bytes=0, read=read), device)

    source = VariedFeatures(model, images, device) if varied else FeatureStore(model, images, device)
    features = Features(source, store(held_out), store(test))
    return features, {
        "encoder_weights": loaded,
        "data_sha256": dataset.sha256(),
        "test_sha256": replace(dataset, train=tuple(test)).sha256(),
        "recipe": asdict(recipe),
    }


def paper_rows(dataset: Dataset, encoder: str) -> list[FigureRow]:
    """Return the paper's Table 2 for the dataset's class: this encoder and the ablated one; none for other data."""
    name = find_class(dataset.root.resolve().name)
    if name is None:
        return []
    rows = [row for each in (encoder, PAPER_ABLATION_ENCODER) for row in class_rows(name, each)]
    return [row for row in dict.fromkeys(rows) if row.source == "Table 2"]


def _check(options: argparse.Namespace, dataset: Dataset, config: ModelConfig) -> None:
    if config != replace(config, **asdict(FlowKind())):
        expected = "an ablation varies --blocks, --unconditional and --hard-permutation itself"
        raise UserError(expected, "one of them", "leave it out")
    if len(config.taps) < 2:
        raise UserError("an ablation needs at least 2 taps, to leave the finest out", ", ".join(config.taps))
    if not options.memory > 0:
        raise UserError("--memory must be above 0 (GB)", f"{options.memory:g}")
    if not dataset.test:
        raise UserError(f"{options.data} must hold labelled images in test/good and test/<defect>", "none")
    check_classes(np.array([image.anomalous for image in dataset.test], dtype=bool), "an ablation")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("python -m train.ablation"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help=DATA)
    add_size_argument(parser)
    parser.add_argument("--all", action="store_true", help="all 16 combinations")
    parser.add_argument(
        "--test-maximum",
        action="store_true",
        help="compare the paper's test-maximum score with frozen constants for every variant, not the first alone",
    )
    parser.add_argument(
        "--memory", type=float, default=8, metavar="GB", help="most that features may take (default: 8)"
    )
    parser.add_argument("--json", type=output_file, help="also write the figures here")
    parser.add_argument(
        "--out-dir", type=output_folder, help="keep finished decoders here, to go on after an interruption"
    )
    add_training_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run an ablation from the command line."""
    options = _parser().parse_args(argv)
    recipe = recipe_from(options)
    check_size(options.size)
    dataset = open_dataset(options.data)
    config = config_from(options, dataset)
    _check(options, dataset, config)
    processes, started = one_process(), time.monotonic()
    recipe = settle(recipe, processes.device)
    features, identity = prepare(dataset, config, recipe, options.weights, options.memory, processes.device)
    encoded = (time.monotonic() - started) / 60
    print(f"features of the images: {encoded:.1f} minutes", file=sys.stderr)
    taps = len(config.taps)
    variants = all_variants(taps) if options.all else default_variants(taps)
    wanted = list(dict.fromkeys(key for variant in variants for key in variant.decoders(taps)))
    runs = train_decoders(wanted, features, recipe, processes, Keep(options.out_dir, config, identity))
    judge = Judge(dataset, config)
    results = [
        judge.result(variant, runs, test_maximum=options.test_maximum or variant == variants[0]) for variant in variants
    ]
    rows = paper_rows(dataset, config.encoder)
    height, width = config.input_size
    print(f"{dataset.origin}, {config.encoder}, {height}x{width}, taps {', '.join(config.taps)}, score {config.score}")
    print(format_results(results))
    print(f"Of {taps} taps, {config.taps[0]} is the one left out. Every distinct decoder was trained once.")
    if rows:
        print("\n" + format_rows(rows))
    if options.json:
        write_json(
            options.json,
            {
                "schema": SCHEMA,
                "data": dataset.origin,
                "config": asdict(config),
                **identity,
                "feature_minutes": encoded,
                "variants": [result_json(result) for result in results],
                "paper_percent": [asdict(row) for row in rows],
            },
        )


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
