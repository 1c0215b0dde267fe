"""The forms that one detector exists in, each ready to judge frames: torch, ONNX files of every precision, plans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.graph.onnx_files import cpu_session, foreign_graph, get_info, load_model
from export.precisions.answers import BATCH
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.session import Frames, Maps, Scores
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar, read_sidecar, sidecar_path
from runtime.images.preprocess import PLAIN

Judge = Callable[[Frames], tuple[Maps, Scores]]
FORMS = {".pt": "torch", ".unfused.onnx": "unfused", ".onnx": "fused", ".fp16.onnx": "fp16", ".int8.onnx": "int8"}
PLAN = "plan"


@dataclass(frozen=True)
class DetectorForm:
    """One file: `form` is "torch", "unfused", "fused", "fp16", "int8" or, for a plan, "plan fp16" and the like.

    `checkpoint_sha256` is the hash of the checkpoint that it was made from, `data_origin` the name of what that was
    trained on. `open` loads it and returns what judges
    frames (B, H, W, 3); it raises `UserError` where this machine cannot run it.
    """

    form: str
    path: Path
    checkpoint_sha256: str
    encoder: str
    input_size: tuple[int, int]
    threshold: float
    data_origin: str
    open: Callable[[], Judge]
    batch: int = BATCH  # most frames that it takes at once
    side_by_side: bool = False  # whether several threads may judge with it
    network_sha256: str = ""  # of weights and constants, where that is known: thresholds in the checkpoint may change
    white: int = PLAIN.white  # of 16-bit files that do not say it

    @property
    def precision(self) -> str:
        """Return "fp32", "fp16" or "int8"."""
        last = self.form.split()[-1]
        return last if last in ("fp16", "int8") else "fp32"

    @property
    def size_mb(self) -> float:
        """The file's size in 10^6 bytes."""
        return self.path.stat().st_size / 1e6


def find_forms(models: Sequence[Path]) -> list[DetectorForm]:
    """Return the files to compare: `models` and what stands beside each under its name, the exact forms first.

    Raises `UserError` for a file that is none of the forms or not whole, and unless all come from one checkpoint.
    """
    paths = dict.fromkeys(path for model in models for path in [model, *_beside(model)])
    order = [*FORMS.values(), PLAN]
    found = sorted((_contender(path) for path in paths), key=lambda c: order.index(c.form.split()[0]))
    first = found[0]
    for other in found[1:]:
        if not _same_model(first, other):
            raise UserError(
                f"{other.path} must be made from the same checkpoint as {first.path.name} "
                f"(sha256 {first.checkpoint_sha256[:12]})",
                other.checkpoint_sha256[:12] or "another",
                f"build it again: python -m export.build_engine {sidecar_path(first.path).stem}.pt",
            )
    return found


def _same_model(first: DetectorForm, other: DetectorForm) -> bool:
    if first.input_size != other.input_size:
        return False
    if first.network_sha256 and other.network_sha256:
        return first.network_sha256 == other.network_sha256
    return first.checkpoint_sha256 == other.checkpoint_sha256


def _beside(model: Path) -> list[Path]:
    base = sidecar_path(model)
    candidates = (base.with_suffix(suffix) for suffix in (*FORMS, ".plan"))
    return [path for path in candidates if path.is_file()]


def _contender(path: Path) -> DetectorForm:
    if not path.is_file():
        raise UserError(f"a model must stand at {path}", "no such file", "build it with export.build_engine")
    if path.suffix == ".pt":
        return _checkpoint(path)
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix == ".plan":
        return _plan(path)
    raise UserError("a model is a .pt, .onnx or .plan file", str(path))


def _checkpoint(path: Path) -> DetectorForm:
    from export.model.checkpoint import (  # torch: only where a checkpoint is to be judged
        load_checkpoint,
        network_sha256,
    )

    checkpoint = load_checkpoint(path)
    threshold = checkpoint.thresholds[checkpoint.default_threshold].value

    def open_it() -> Judge:
        import torch

        from export.model.tiled import module_of

        detector = module_of(checkpoint.model, checkpoint.constants)

        def judge(frames: Frames) -> tuple[Maps, Scores]:
            with torch.inference_mode():
                maps, scores = detector(torch.from_numpy(frames))
            return maps.numpy(), scores.numpy()

        return judge

    config = checkpoint.model.config
    return DetectorForm(
        form="torch",
        path=path,
        checkpoint_sha256=sha256_of(path),
        encoder=config.encoder,
        input_size=config.judged_size,
        threshold=threshold,
        data_origin=checkpoint.data_origin,
        open=open_it,
        network_sha256=network_sha256(checkpoint),
        white=config.white,
    )


def _onnx(path: Path) -> DetectorForm:
    model = load_model(path)
    info = get_info(model, str(path))
    form = info.precision if info.precision != "fp32" else "fused" if info.fused else "unfused"
    sidecar = info.sidecar

    def open_it() -> Judge:
        _check_takes_input_size(path, sidecar)
        with foreign_graph(path):
            session = cpu_session(model, threads=1)

        def judge(frames: Frames) -> tuple[Maps, Scores]:
            maps, scores = session.run([MAP_NAME, SCORE_NAME], {INPUT_NAME: frames})
            return maps, scores

        return judge

    return _described(form, path, sidecar, info.data_origin, open_it, side_by_side=True)


def _plan(path: Path) -> DetectorForm:
    sidecar = read_sidecar(path)
    artefact = sidecar.artefact_of(path)

    def open_it() -> Judge:
        import runtime

        _check_takes_input_size(path, sidecar)
        return runtime.load(path).session.run

    return _described(f"{PLAN} {artefact.precision}", path, sidecar, "", open_it, min(BATCH, sidecar.batch))


def _check_takes_input_size(path: Path, sidecar: Sidecar) -> None:
    """Raise `UserError` for an engine with the resize inside: it cannot be given the images that the others are."""
    if sidecar.engine_frame_size != sidecar.input_size:
        (height, width), (frame_height, frame_width) = sidecar.input_size, sidecar.engine_frame_size
        raise UserError(
            f"{path.name} must take images of its input size {height}x{width} to be compared",
            f"frames of {frame_height}x{frame_width}, which it resizes itself",
            "compare a build without --frame-size: the resize is checked where it is put inside",
        )


def _described(
    form: str,
    path: Path,
    sidecar: Sidecar,
    origin: str,
    open_it: Callable[[], Judge],
    batch: int = BATCH,
    side_by_side: bool = False,
) -> DetectorForm:
    return DetectorForm(
        form=form,
        path=path,
        checkpoint_sha256=sidecar.checkpoint_sha256,
        encoder=sidecar.encoder,
        input_size=sidecar.input_size,
        threshold=sidecar.threshold.value,
        data_origin=origin,
        open=open_it,
        batch=batch,
        side_by_side=side_by_side,
        network_sha256=sidecar.network_sha256,
        white=sidecar.white,
    )
