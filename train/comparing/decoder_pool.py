"""The decoders that an ablation's variants share: each distinct one trained once, and kept when it is finished."""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, cast

import torch
from tqdm import tqdm

from export.model.cflow import CFlow, ModelConfig
from export.model.flow import Decoder
from train.comparing.decoder_run import DecoderJob, DecoderRun, Features, load_run, save_run, train_decoder
from train.comparing.variants import DecoderKey
from train.loop.processes import Processes
from train.loop.schedule import Recipe


@dataclass(frozen=True)
class Keep:
    """Finished decoders in `folder`, so that an interrupted ablation goes on; None keeps none."""

    folder: Path | None
    config: ModelConfig
    identity: Mapping[str, Any]

    def load(self, key: DecoderKey) -> DecoderRun | None:
        """Return the kept run. Raises `UserError` if it is one of other settings."""
        path = self._path(key)
        return None if path is None else load_run(path, self._identity(key))

    def save(self, key: DecoderKey, run: DecoderRun) -> None:
        """Keep `run`."""
        path = self._path(key)
        if path is not None:
            save_run(path, run, self._identity(key))

    def _path(self, key: DecoderKey) -> Path | None:
        flow, tap = key
        name = f"{self.config.taps[tap]}-{flow.coupling_blocks}-{flow.condition}-{flow.permutation}.pt"
        return None if self.folder is None else self.folder / name

    def _identity(self, key: DecoderKey) -> dict[str, Any]:
        config = replace(self.config, **asdict(key[0])).facts()
        del config["score"]  # computed from the log-likelihoods afterwards
        return {**self.identity, "config": config}


def train_decoders(
    wanted: Sequence[DecoderKey], features: Features, recipe: Recipe, processes: Processes, keep: Keep
) -> dict[DecoderKey, DecoderRun]:
    """Train every decoder of `wanted` that is not kept already: side by side on a CPU, one after another on a GPU."""
    runs = {key: run for key in wanted if (run := keep.load(key)) is not None}
    missing = [key for key in wanted if key not in runs]
    threads = torch.get_num_threads()
    workers = max(1, min(len(missing), threads)) if processes.device.type == "cpu" else 1
    building, stop = Lock(), Event()
    batches = recipe.epochs * -(-len(features.train) // recipe.batch)
    bar = tqdm(total=len(missing) * batches, unit="batch", disable=None)

    def after_batch() -> None:
        bar.update()
        if stop.is_set():  # another decoder failed, or Ctrl-C
            raise CancelledError

    def train(key: DecoderKey) -> DecoderRun:
        flow, tap = key
        config = replace(keep.config, **asdict(flow))
        with building:  # takes the global generator for the subnets' initialisation
            decoder = CFlow(config).decoders[tap]
        _, height, width = config.tap_sizes[tap]
        job = DecoderJob(tap, (height, width), recipe, processes, after_batch)
        run = train_decoder(cast(Decoder, decoder), job, features)
        keep.save(key, run)
        return run

    torch.set_num_threads(threads // workers)
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(train, key): key for key in missing}
        for future in as_completed(futures):
            key = futures[future]
            runs[key] = future.result()
            logp, minutes = float(runs[key].held_out.mean()), runs[key].minutes
            line = f"{keep.config.taps[key[1]]}, {key[0]}: held-out logp {logp:.3f}, {minutes:.1f} minutes"
            bar.write(f"{line} ({len(runs)} of {len(wanted)} decoders)", file=sys.stderr)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
        bar.close()
    return runs
