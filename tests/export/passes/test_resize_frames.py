"""The pass that puts the resize in front of a graph: a grey level at most from the training resize, everywhere."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from PIL import Image

from export.passes.resize_frames import MIN_CHANNELS, find_front, phases_of, put_in_front
from runtime.images.folders import list_images
from runtime.images.preprocess import read_image, resize
from tests.support.export_fixtures import session_of
from tests.support.paths import SHARED

SCREWS = SHARED / "data/mvtec_screw/test/scratch_head"
HD, FULL_HD = (720, 1280), (1080, 1920)
PAIRS = [(FULL_HD, (256, 256)), (FULL_HD, (256, 320)), (HD, (256, 256)), (HD, (512, 512)), (HD, (192, 448))]
# what float32 sums round otherwise than Pillow's integers: exact ties, rare in noise, less so among like neighbours
TIES, TIES_OF_LIKES = 0.004, 0.02


def start(size, text="Cast <to = 1> (frames)", last="x = Transpose <perm = [0, 3, 1, 2]> (wide)"):
    """The first nodes of every export of this project; x are planes of grey levels."""
    height, width = size
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        start (uint8[batch, {height}, {width}, 3] frames) => (float[batch, 3, {height}, {width}] y)
        {{
            wide = {text}
            {last}
            y = Identity(x)
        }}
    """)


def put(model, frame_size, size):
    graph = gs.import_onnx(model)
    front = find_front(graph)
    assert not isinstance(front, str), front
    put_in_front(graph, front, frame_size, size)
    resized = gs.export_onnx(graph)
    resized.ir_version = 8
    onnx.checker.check_model(resized, full_check=True)
    return resized


@pytest.fixture(scope="module")
def sessions():
    made = {}

    def session(frame_size, size):
        if (frame_size, size) not in made:
            made[frame_size, size] = session_of(put(start(size), frame_size, size))
        return made[frame_size, size]

    return session


def levels_of(session, frames):
    return session.run(None, {"frames": frames})[0].transpose(0, 2, 3, 1)


def differences(session, frames, size):
    """|grey level in the graph - grey level of the training resize|, (B, h, w, 3)."""
    found = levels_of(session, frames)
    assert found.dtype == np.float32 and (found == np.rint(found)).all() and found.min() >= 0 and found.max() <= 255
    return np.abs(found - np.stack([resize(frame, size) for frame in frames]))


def checkerboard(size, pitch, dark, light):
    rows, columns = np.indices(size)
    board = np.where((rows // pitch + columns // pitch) % 2, light, dark).astype(np.uint8)
    return np.repeat(board[:, :, None], 3, axis=2)


def gradients(size):
    """Along the width in red, along the height in green, along both in blue."""
    y, x = np.indices(size) / (np.array(size) - 1)[:, None, None]
    return np.rint(255 * np.stack([x, y, (x + y) / 2], axis=2)).astype(np.uint8)


@pytest.mark.parametrize(("camera", "size"), PAIRS)
def test_checkerboards_stay_within_a_level(sessions, camera, size):
    session = sessions(camera, size)
    for pitch in (1, 2, 7, 32):
        boards = np.stack([checkerboard(camera, pitch, *tones) for tones in ((0, 255), (100, 101))])
        assert differences(session, boards, size).max() <= 1


@pytest.mark.parametrize(("camera", "size"), PAIRS)
def test_noise_and_gradients_stay_within_a_level_and_nearly_everywhere_equal(sessions, camera, size):
    noise = np.random.default_rng(1).integers(0, 256, (*camera, 3), dtype=np.uint8)
    found = differences(sessions(camera, size), np.stack([noise, gradients(camera)]), size)
    assert found.max() <= 1
    # without the rounding between the passes it is 0.09 and more
    assert (found[0] > 0).mean() < TIES
    assert (found[1] > 0).mean() < TIES_OF_LIKES


@pytest.mark.skipif(not SCREWS.is_dir(), reason="needs the photographs in ../shared")
@pytest.mark.parametrize(("camera", "size"), PAIRS)
def test_photographs_stay_within_a_level(sessions, camera, size):
    photographs = [Image.fromarray(read_image(path)) for path in list_images(SCREWS)[:2]]
    frames = np.stack([np.array(photo.resize(camera[::-1], Image.Resampling.LANCZOS)) for photo in photographs])
    frames[1] = frames[1, ::-1] // 2 + np.array([100, 0, 50], np.uint8)  # coloured: the screws are grey
    found = differences(sessions(camera, size), frames, size)
    assert found.max() <= 1
    assert (found > 0).mean() < TIES_OF_LIKES


@pytest.mark.parametrize(
    ("camera", "size"),
    [
        ((64, 200), (64, 96)),  # one side as it was
        ((200, 96), (64, 96)),
        ((1280, 720), (256, 320)),  # portrait
        ((37, 61), (64, 96)),  # up, and no common factor
        ((131, 96), (64, 97)),  # a prime height, and a width that grows by a pixel
        ((1, 1), (32, 40)),
        ((99, 77), (1, 1)),
    ],
)
def test_odd_sizes(sessions, camera, size):
    frames = np.random.default_rng(2).integers(0, 256, (2, *camera, 3), dtype=np.uint8)
    assert differences(sessions(camera, size), frames, size).max() <= 1


def test_grey_stays_grey_and_a_flat_frame_flat(sessions):
    session = sessions((720, 1280), (256, 320))
    grey = np.random.default_rng(3).integers(0, 256, (1, 720, 1280, 1), dtype=np.uint8).repeat(3, axis=3)
    levels = levels_of(session, grey)
    assert (levels == levels[..., :1]).all()
    for tone in (0, 1, 77, 254, 255):
        assert (levels_of(session, np.full((1, 720, 1280, 3), tone, np.uint8)) == tone).all()


def test_frames_of_a_batch_do_not_meet(sessions):
    session = sessions((720, 1280), (256, 256))
    frames = np.random.default_rng(4).integers(0, 256, (2, 720, 1280, 3), dtype=np.uint8)
    together = levels_of(session, frames)
    np.testing.assert_array_equal(together[1:], levels_of(session, frames[1:]))


def test_ten_bits_of_mantissa_cost_no_second_level():
    """A library may multiply FP32 as TF32 or FP16 (11 significant bits); grey levels are exact in those."""
    camera, size = (720, 1280), (256, 320)
    model = put(start(size), camera, size)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1 and "constant" in tensor.name:
            mantissa, exponent = np.frexp(values)
            narrow = np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(narrow, tensor.name))
    noise = np.random.default_rng(5).integers(0, 256, (*camera, 3), dtype=np.uint8)
    boards = [checkerboard(camera, pitch, *tones) for pitch in (1, 3, 8) for tones in ((0, 255), (1, 254), (10, 201))]
    found = differences(session_of(model), np.stack([noise, gradients(camera), *boards]), size)
    assert 0 < found[0].mean() < 0.03 and found.max() <= 1


def test_neither_pass_is_a_dense_product():
    model = put(start((256, 256)), (1080, 1920), (256, 256))
    operators = [node.op_type for node in model.graph.node if node.name.startswith("resize/")]
    assert operators.count("Conv") == 1 and operators.count("MatMul") == 8
    weights = {tensor.name: np.prod(tensor.dims) for tensor in model.graph.initializer}
    heights = sum(weights[node.input[0]] for node in model.graph.node if node.op_type == "MatMul")
    assert heights < 0.2 * 256 * 1080
    assert phases_of(1920, 256) == 8 and phases_of(1920, 256) * 3 >= MIN_CHANNELS


def test_a_width_that_hardly_repeats_is_no_dense_product_either():
    assert phases_of(1366, 256) == 128
    model = put(start((256, 256)), (768, 1366), (256, 256))
    operators = [node.op_type for node in model.graph.node if node.name.startswith("resize/")]
    assert operators.count("Conv") == 0 and operators.count("MatMul") == 8 + 16
    frames = np.random.default_rng(6).integers(0, 256, (2, 768, 1366, 3), dtype=np.uint8)
    found = differences(session_of(model), frames, (256, 256))
    assert found.max() <= 1 and (found > 0).mean() < TIES


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {
                "text": "Cast <to = 10> (frames)",
                "last": "h = Transpose <perm = [0, 3, 1, 2]> (wide)\n x = Cast <to = 1> (h)",
            },
            "FP32",
        ),
        ({"last": "x = Transpose <perm = [0, 3, 2, 1]> (wide)"}, "does not make planes"),
        (
            {"last": "t = Transpose <perm = [0, 3, 1, 2]> (wide) s = ReduceSum <keepdims = 1> (wide) x = Add(t, s)"},
            "several readers",
        ),
    ],
)
def test_other_starts_are_refused(changes, reason):
    front = find_front(gs.import_onnx(start((32, 32), **changes)))
    assert isinstance(front, str) and reason in front
