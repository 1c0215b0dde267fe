"""The forms that one detector exists in, each ready to judge frames: torch, ONNX files of every precision, plans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.graph.onnx_files import cpu_session, get_info, load_model
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.session import Frames, Maps, Scores
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar, read_sidecar, sidecar_path
from runtime.images.preprocess import PLAIN

Judge = Callable[[Frames], tuple[Maps, Scores]]
FORMS = {".pt": "torch", ".unfused.onnx": "unfused", ".onnx": "fused", ".fp16.onnx": "fp16", ".int8.onnx": "int8"}
PLAN = "plan"
BATCH = 4  # frames at a time; a larger batch would only take memory


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
        if (other.checkpoint_sha256, other.input_size) != (first.checkpoint_sha256, first.input_size):
            raise UserError(
                f"{other.path} must be made from the same checkpoint as {first.path.name} "
                f"(sha256 {first.checkpoint_sha256[:12]})",
                other.checkpoint_sha256[:12] or "another",
                f"build it again: python -m export.build_engine {sidecar_path(first.path).stem}.pt",
            )
    return found


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
    from export.model.checkpoint import load_checkpoint  # torch: only where a checkpoint is to be judged

    checkpoint = load_checkpoint(path)
    threshold = checkpoint.thresholds[checkpoint.default_threshold].value

    def open_it() -> Judge:
        import torch

        from export.model.cflow import DetectorModule

        detector = DetectorModule(checkpoint.model, checkpoint.constants).eval()

        def judge(frames: Frames) -> tuple[Maps, Scores]:
            with torch.inference_mode():
                maps, scores = detector(torch.from_numpy(frames))
            return maps.numpy(), scores.numpy()

        return judge

    config = checkpoint.model.config
    origin = checkpoint.data_origin
    described = (sha256_of(path), config.encoder, config.input_size, threshold, origin)
    return DetectorForm("torch", path, *described, open_it, white=config.white)


def _onnx(path: Path) -> DetectorForm:
    model = load_model(path)
    info = get_info(model, str(path))
    form = info.precision if info.precision != "fp32" else "fused" if info.fused else "unfused"
    sidecar = info.sidecar

    def open_it() -> Judge:
        session = cpu_session(model)

        def judge(frames: Frames) -> tuple[Maps, Scores]:
            maps, scores = session.run([MAP_NAME, SCORE_NAME], {INPUT_NAME: frames})
            return maps, scores

        return judge

    return _described(form, path, sidecar, info.data_origin, open_it)


def _plan(path: Path) -> DetectorForm:
    sidecar = read_sidecar(path)
    artefact = sidecar.artefact_of(path)

    def open_it() -> Judge:
        import runtime

        return runtime.load(path).session.run

    return _described(f"{PLAN} {artefact.precision}", path, sidecar, "", open_it, min(BATCH, sidecar.batch))


def _described(
    form: str, path: Path, sidecar: Sidecar, origin: str, open_it: Callable[[], Judge], batch: int = BATCH
) -> DetectorForm:
    described = (sidecar.checkpoint_sha256, sidecar.encoder, sidecar.input_size, sidecar.threshold.value)
    return DetectorForm(form, path, *described, origin, open_it, batch, sidecar.white)
