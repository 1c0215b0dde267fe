"""The scores that a sidecar's golden frames have in each file of an engine, measured by ONNX Runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from export.graph.onnx_files import cpu_session, load_model
from runtime.common.errors import UserError
from runtime.engines.golden import Golden
from runtime.engines.sidecar import INPUT_NAME, SCORE_NAME


def measured(golden: Golden | None, files: dict[str, Path], frame_size: tuple[int, int]) -> Golden | None:
    """Return `golden` with the scores of `files`, ONNX by precision, for frames of (height, width) `frame_size`.

    Raises `UserError` where a score is not finite: nothing that such an engine says could be trusted.
    """
    if golden is None:
        return None
    frames = golden.frames(frame_size)
    scores = {}
    for precision, path in files.items():
        session = cpu_session(load_model(path))
        first, second = (float(session.run([SCORE_NAME], {INPUT_NAME: frame[None]})[0][0]) for frame in frames)
        if not np.isfinite([first, second]).all():
            raise UserError(
                f"{path.name} must give a good image a finite score", f"{first}, {second}", "train it again"
            )
        scores[precision] = (first, second)
    return replace(golden, scores=scores)
