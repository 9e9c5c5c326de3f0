# SPDX-License-Identifier: Apache-2.0
"""Images between messages and arrays; the same tests with cv_bridge, where it is installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image
from twinloop.bags import types
from twinloop.perception import images
from twinloop.perception.camera_info import from_camera_info, to_camera_info
from twinloop.perception.camera_model import pinhole
from twinloop.perception.image_files import MAX_SIDE, ImageRefused

RNG = np.random.default_rng(3)
STAMP = Time(sec=12, nanosec=34)
FRAME = "camera_left_optical"


@pytest.fixture(params=["own"] if images.BRIDGE is None else ["own", "cv_bridge"], autouse=True)
def converter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "own":
        monkeypatch.setattr(images, "BRIDGE", None)


def sample(encoding: str, height: int = 6, width: int = 5) -> np.ndarray:
    kind = images.ENCODINGS[encoding]
    shape = (height, width) if kind.channels == 1 else (height, width, kind.channels)
    if kind.dtype == np.float32:
        return RNG.uniform(0.0, 2.0, shape).astype(np.float32)
    return RNG.integers(0, np.iinfo(kind.dtype).max, shape, kind.dtype, endpoint=True)


def scene(height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth colour image, as JPEG is made for."""
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x, 4 * y, 255 - 2 * x - y], axis=-1).clip(0, 255).astype(np.uint8)


def message(encoding: str = "rgb8", **changes: Any) -> Image:
    result = images.to_message(sample(encoding), encoding, STAMP, FRAME)
    for name, value in changes.items():
        setattr(result, name, value)
    return result


@pytest.mark.parametrize("encoding", sorted(images.ENCODINGS))
def test_an_image_survives_the_way_to_a_message_and_back(encoding: str) -> None:
    pixels = sample(encoding)
    sent = images.to_message(pixels, encoding, STAMP, FRAME)
    assert (sent.width, sent.height, sent.encoding) == (5, 6, encoding)
    assert sent.step * sent.height == len(sent.data)
    assert (sent.header.stamp, sent.header.frame_id) == (STAMP, FRAME)
    received = images.to_array(sent)
    assert received.dtype == pixels.dtype
    assert np.array_equal(received, pixels)


@pytest.mark.parametrize("encoding", sorted(images.ENCODINGS))
def test_an_image_that_is_a_part_of_another_is_sent_right(encoding: str) -> None:
    pixels = sample(encoding, 12, 10)[::2, 1::2]
    assert np.array_equal(
        images.to_array(images.to_message(pixels, encoding, STAMP, FRAME)), pixels
    )


@pytest.mark.parametrize("encoding", sorted(images.ENCODINGS))
def test_an_image_read_from_a_bag_is_taken_like_a_message(encoding: str) -> None:
    kind = types.message_class("sensor_msgs/msg/Image")
    pixels = sample(encoding)
    sent = images.to_message(pixels, encoding, STAMP, FRAME)
    fields = {
        name: getattr(sent, name)
        for name in ("height", "width", "encoding", "is_bigendian", "step")
    }
    header = types.message_class("std_msgs/msg/Header")
    time = types.message_class("builtin_interfaces/msg/Time")
    stored = kind(
        header=header(stamp=time(sec=12, nanosec=34), frame_id=FRAME),
        data=np.array(sent.data, np.uint8),
        **fields,
    )
    read = types.deserialize(types.serialize(stored, kind.__msgtype__), kind.__msgtype__)
    assert np.array_equal(images.to_array(read), pixels)


@pytest.mark.parametrize("encoding", sorted(images.ENCODINGS))
@pytest.mark.parametrize("padding", [1, 2, 3, 7])
def test_rows_may_be_padded(encoding: str, padding: int) -> None:
    pixels = sample(encoding)
    rows = pixels.reshape(6, -1).view(np.uint8)
    padded = np.hstack([rows, np.full((6, padding), 77, np.uint8)])
    sent = message(encoding, step=padded.shape[1], data=padded.tobytes())
    assert np.array_equal(images.to_array(sent), pixels)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "rgb8"])
@pytest.mark.parametrize("is_big", [False, True])
def test_either_byte_order_is_read(encoding: str, is_big: bool) -> None:
    pixels = sample(encoding)
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if is_big else "<"))
    sent = message(encoding, is_bigendian=int(is_big), data=stored.tobytes())
    received = images.to_array(sent)
    assert np.array_equal(received, pixels)
    assert received.dtype.isnative


@pytest.mark.parametrize(
    ("held", "wanted"),
    [("rgb8", "bgr8"), ("bgr8", "rgb8"), ("mono8", "rgb8"), ("mono8", "bgr8"), ("rgb8", "mono8")],
)
def test_encodings_are_converted(held: str, wanted: str) -> None:
    pixels = sample(held)
    received = images.to_array(images.to_message(pixels, held, STAMP, FRAME), wanted)
    if wanted == "mono8":
        grey = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
        assert np.abs(received - grey).max() <= 1.0
    elif held == "mono8":
        assert np.array_equal(received, np.repeat(pixels[..., None], 3, axis=2))
    else:
        assert np.array_equal(received, pixels[..., ::-1])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": 0}, "empty: 0x6"),
        ({"height": 0, "data": b""}, "empty: 5x0"),
        ({"width": MAX_SIDE + 1}, "at most 16384 a side"),
        ({"width": 16384, "height": 16384, "step": 49152}, "33554432 in all"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "at most"),
        ({"step": 14}, "step is 14 bytes, expected at least 15"),
        ({"step": 2**32 - 1}, "no more than padding needs"),
        ({"data": b"\x00" * 89}, "data holds 89 bytes, expected 90"),
        ({"data": b""}, "data holds 0 bytes, expected 90"),
        ({"data": b"\x00" * 91}, "data holds 91 bytes, expected 90"),
        ({"is_bigendian": 2}, "is_bigendian is 2, expected 0 or 1"),
    ],
)
def test_row_19_a_wrong_image_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ImageRefused, match=complaint):
        images.to_array(message(**changes))


@pytest.mark.parametrize("encoding", ["", "yuv422_yuy2", "RGB8", "64FC9", "rgb8\0"])
def test_an_unknown_encoding_is_refused_or_left_to_cv_bridge(encoding: str) -> None:
    sent = message()
    fields = {name: getattr(sent, name) for name in ("height", "width", "is_bigendian", "step")}
    unknown = SimpleNamespace(**fields, data=bytes(sent.data), encoding=encoding)
    with pytest.raises(ImageRefused, match="encoding|cv_bridge cannot convert"):
        images.to_array(unknown)


def test_an_impossible_conversion_is_refused() -> None:
    with pytest.raises(ImageRefused, match="16UC1"):
        images.to_array(message("16UC1"), "rgb8")


@pytest.mark.parametrize(
    ("pixels", "encoding", "complaint"),
    [
        (np.zeros((4, 5), np.uint8), "rgb8", "uint8 \\[4, 5\\], expected uint8 \\[H, W, 3\\]"),
        (np.zeros((4, 5, 4), np.uint8), "bgr8", "\\[4, 5, 4\\]"),
        (np.zeros((4, 5)), "32FC1", "float64 \\[4, 5\\], expected float32 \\[H, W\\]"),
        (np.zeros((0, 5), np.uint8), "mono8", "empty: 5x0"),
        (np.zeros((4, 5, 3), np.uint8), "yuv", "encoding is 'yuv'"),
    ],
)
def test_an_array_that_is_not_of_the_encoding_is_refused(
    pixels: np.ndarray, encoding: str, complaint: str
) -> None:
    with pytest.raises(ImageRefused, match=complaint):
        images.to_message(pixels, encoding, STAMP, FRAME)


# Compressed images.


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "16UC1"])
def test_png_keeps_every_pixel(encoding: str) -> None:
    pixels = sample(encoding)
    sent = images.compress(pixels, encoding, STAMP, FRAME, "png")
    assert isinstance(sent, CompressedImage)
    assert np.array_equal(images.to_array(sent), pixels)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_jpeg_keeps_the_picture(encoding: str) -> None:
    pixels = scene() if encoding != "mono8" else np.ascontiguousarray(scene()[..., 1])
    sent = images.compress(pixels, encoding, STAMP, FRAME)
    assert len(sent.data) < pixels.nbytes / 4
    received = images.to_array(sent)
    assert received.shape == pixels.shape
    assert np.abs(received.astype(int) - pixels).mean() < 3.0


@pytest.mark.parametrize("text", ["jpeg", "jpg", "rgb8; jpeg compressed bgr8", "", "16UC1; jpeg"])
def test_without_word_of_the_encoding_colour_is_red_first(text: str) -> None:
    sent = images.compress(scene(), "rgb8", STAMP, FRAME)
    sent.format = text
    assert np.abs(images.to_array(sent).astype(int) - scene()).mean() < 3.0
    assert np.abs(images.to_array(sent, "bgr8").astype(int) - scene()[..., ::-1]).mean() < 3.0


def test_what_cannot_be_compressed_is_refused() -> None:
    with pytest.raises(ImageRefused, match="32FC1 cannot be compressed as png"):
        images.compress(sample("32FC1"), "32FC1", STAMP, FRAME, "png")
    with pytest.raises(ImageRefused, match="16UC1 cannot be compressed as jpeg"):
        images.compress(sample("16UC1"), "16UC1", STAMP, FRAME)
    with pytest.raises(ImageRefused, match="format is 'gif'"):
        images.compress(scene(), "rgb8", STAMP, FRAME, "gif")
    with pytest.raises(ImageRefused, match="quality is 0, expected 1 to 100"):
        images.compress(scene(), "rgb8", STAMP, FRAME, quality=0)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_size_of_a_file_is_checked_before_it_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = images.compress(scene(), "rgb8", STAMP, FRAME, kind)
    data = bytearray(sent.data)
    if kind == "png":
        data[16:24] = b"\x00\x00\x75\x30" * 2  # 30000 x 30000
    else:
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = b"\x75\x30" * 2
    sent.data = bytes(data)
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(ImageRefused, match="image is 30000x30000 pixels"):
        images.to_array(sent)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "begins with nothing"),
        (b"GIF89a\x01\x00\x01\x00", "begins with 474946383961"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "ends before its size"),
        (b"\xff\xd8\xff\xe0\x00\x02", "ends before its size"),
        (b"\xff\xd8\xff\xd8\x00\x00" * 40, "JPEG of 240 bytes"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(ImageRefused, match=complaint):
        images.to_array(CompressedImage(format="jpeg", data=data))


def test_transparent_and_deep_colours_are_refused() -> None:
    import cv2

    for pixels in (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)):
        data = cv2.imencode(".png", pixels)[1].tobytes()
        with pytest.raises(ImageRefused, match="expected 4 rows of 4 pixels: grey of 8 or 16"):
            images.to_array(CompressedImage(format="png", data=data))


# Whatever comes in, it is an image or a refusal that says why.


def array_or_refusal(message: Any, wanted: str = "") -> np.ndarray | None:
    try:
        return images.to_array(message, wanted)
    except ImageRefused as refusal:
        message = str(refusal)
    assert len(message) > 10
    return None


UINT32 = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1))
ENCODING = st.one_of(st.sampled_from(sorted(images.ENCODINGS)), st.text(max_size=8))


@settings(max_examples=300, deadline=None)
@given(
    height=UINT32,
    width=UINT32,
    step=UINT32,
    encoding=ENCODING,
    is_bigendian=st.integers(0, 255),
    data=st.binary(max_size=400),
    wanted=st.one_of(st.just(""), ENCODING),
)
def test_a_malformed_image_never_crashes(wanted: str, **fields: Any) -> None:
    pixels = array_or_refusal(SimpleNamespace(**fields), wanted)
    assert pixels is None or pixels.shape[:2] == (fields["height"], fields["width"])


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["png", "jpeg"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
    text=st.text(max_size=20),
)
def test_a_damaged_file_never_crashes(
    kind: str, changes: list[tuple[float, int]], kept: float, text: str
) -> None:
    data = bytearray(images.compress(scene(20, 24), "rgb8", STAMP, FRAME, kind).data)
    for place, value in changes:
        data[int(place * len(data))] = value
    message = SimpleNamespace(format=text, data=bytes(data[: round(kept * len(data))]))
    with pytest.MonkeyPatch.context() as patch:
        # A changed size would take long to decode, and say nothing new.
        patch.setattr("twinloop.perception.image_files.MAX_PIXELS", 10_000)
        pixels = array_or_refusal(message)
    assert pixels is None or pixels.ndim in (2, 3)


# Camera information.


def test_a_camera_survives_the_way_to_a_message_and_back() -> None:
    camera = pinhole("right", (280, 180), 60.0, baseline_m=0.12)
    sent = to_camera_info(camera, STAMP, FRAME)
    assert (sent.header.stamp, sent.header.frame_id) == (STAMP, FRAME)
    received = from_camera_info(sent, "right")
    assert received.name == "right"
    assert received.size == (280, 180)
    for name in ("k", "d", "r", "p"):
        assert np.array_equal(getattr(received, name), getattr(camera, name))
    assert from_camera_info(sent).name == FRAME


def test_a_camera_without_coefficients_has_no_distortion() -> None:
    sent = to_camera_info(pinhole("left", (280, 180), 60.0), STAMP, FRAME)
    sent.d, sent.distortion_model = [], ""
    assert not from_camera_info(sent).has_distortion


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"k": np.zeros(9)}, "not calibrated"),
        ({"k": np.full(9, np.nan)}, "expected finite"),
        ({"width": 0}, "empty: 0x180"),
        ({"binning_x": 2}, "binning is \\(2, 0\\)"),
        ({"distortion_model": "fisheye"}, "'fisheye', expected one of"),
        ({"d": [0.1]}, "d is \\[0.1\\]"),
        ({"r": np.zeros(9)}, "expected a rotation"),
    ],
)
def test_a_wrong_camera_info_is_refused(changes: dict[str, Any], complaint: str) -> None:
    sent = to_camera_info(pinhole("left", (280, 180), 60.0), STAMP, FRAME)
    for name, value in changes.items():
        setattr(sent, name, value)
    with pytest.raises(ValueError, match=complaint):
        from_camera_info(sent)


def test_a_part_of_an_image_is_refused() -> None:
    sent = to_camera_info(pinhole("left", (280, 180), 60.0), STAMP, FRAME)
    sent.roi.width, sent.roi.height = 280, 180
    assert from_camera_info(sent).size == (280, 180)
    sent.roi.width = 100
    with pytest.raises(ValueError, match="region of interest is \\(100, 180\\)"):
        from_camera_info(sent)


def test_this_machine_sends_its_own_byte_order() -> None:
    assert message("16UC1").is_bigendian == (sys.byteorder == "big")
