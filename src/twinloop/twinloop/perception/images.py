# SPDX-License-Identifier: Apache-2.0
"""Images between ROS messages and arrays, checked before anything is made of them.

What is read may be any object with the fields of `sensor_msgs` Image or CompressedImage, as ROS or
a bag's reader gives it. `cv_bridge` converts where it is installed, and then encodings that are not
named here are taken too; without it, everything in `ENCODINGS` works all the same.
"""

from __future__ import annotations

import array
import importlib
import sys
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.camera_info import from_camera_info, to_camera_info
from twinloop.perception.image_files import ImageRefused, check_size, decode_file, encode_file

__all__ = [
    "ENCODINGS",
    "ImageRefused",
    "compress",
    "convert",
    "decompress",
    "from_camera_info",
    "to_array",
    "to_camera_info",
    "to_message",
]

Pixels = NDArray[Any]


class Encoding(NamedTuple):
    """How the pixels of an encoding are laid out."""

    dtype: np.dtype[Any]
    channels: int


# REP-118: 16UC1 is depth in mm with 0 where there is none, 32FC1 depth in m.
ENCODINGS = {
    "rgb8": Encoding(np.dtype(np.uint8), 3),
    "bgr8": Encoding(np.dtype(np.uint8), 3),
    "mono8": Encoding(np.dtype(np.uint8), 1),
    "mono16": Encoding(np.dtype(np.uint16), 1),
    "16UC1": Encoding(np.dtype(np.uint16), 1),
    "32FC1": Encoding(np.dtype(np.float32), 1),
}
_CONVERSIONS = {
    ("rgb8", "bgr8"): cv2.COLOR_RGB2BGR,
    ("bgr8", "rgb8"): cv2.COLOR_BGR2RGB,
    ("rgb8", "mono8"): cv2.COLOR_RGB2GRAY,
    ("bgr8", "mono8"): cv2.COLOR_BGR2GRAY,
    ("mono8", "rgb8"): cv2.COLOR_GRAY2RGB,
    ("mono8", "bgr8"): cv2.COLOR_GRAY2BGR,
}


def _find_bridge() -> Any:
    try:
        # Its compiled half is loaded only when first needed, and fails under another numpy.
        importlib.import_module("cv_bridge.boost.cv_bridge_boost")
        return importlib.import_module("cv_bridge").CvBridge()
    except (ImportError, AttributeError):
        return None


BRIDGE = _find_bridge()


def to_array(message: Any, encoding: str = "") -> Pixels:
    """Return the pixels [H, W] or [H, W, 3] of an Image or CompressedImage message.

    Args:
        message: the message. The array may share its memory, so it is not to be written to.
        encoding: what the pixels shall be; empty for what the message holds (of a compressed one:
            what its format says was compressed, else rgb8, mono8 or 16UC1).

    Raises:
        ImageRefused: the image is empty, absurdly large, of an unknown or unfit encoding, or its
            size, step, endianness and data contradict each other.
    """
    if hasattr(message, "format"):
        return decompress(message, encoding)
    held, wanted = message.encoding, encoding or message.encoding
    if BRIDGE is not None and not {held, wanted} <= ENCODINGS.keys():
        return _by_bridge(message, wanted)
    pixels = _checked_pixels(message)
    _conversion(held, wanted)
    # cv_bridge takes padded rows for whole pixels, and swaps bytes as numpy 1 did.
    is_swapped = bool(message.is_bigendian) != (sys.byteorder == "big")
    if BRIDGE is not None and pixels.flags.c_contiguous and not is_swapped:
        return _by_bridge(message, wanted)
    return convert(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=")), held, wanted)


def to_message(pixels: Pixels, encoding: str, stamp: Any, frame_id: str) -> Any:
    """Return a `sensor_msgs/Image`.

    Args:
        pixels: [H, W] or [H, W, 3], of the encoding's type.
        encoding: a key of `ENCODINGS`.
        stamp: when it was exposed, `builtin_interfaces/Time`.
        frame_id: the camera's optical frame.

    Raises:
        ImageRefused: the array is not such an image.
    """
    from sensor_msgs.msg import Image

    height, width = _checked_array(pixels, encoding).shape[:2]
    kind = ENCODINGS[encoding]
    message = Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=width * kind.channels * kind.dtype.itemsize,
    )
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data = _bytes_field(np.ascontiguousarray(pixels, kind.dtype).data.cast("B"))
    return message


def compress(
    pixels: Pixels,
    encoding: str,
    stamp: Any,
    frame_id: str,
    file_format: str = "jpeg",
    quality: int = 90,
) -> Any:
    """Return a `sensor_msgs/CompressedImage`; see `to_message`.

    Args:
        file_format: jpeg for 8 bits a channel, png for those and 16UC1.
        quality: of JPEG, 1 to 100.

    Raises:
        ImageRefused: the array is not such an image, or the format cannot hold it.
    """
    from sensor_msgs.msg import CompressedImage

    pixels = _checked_array(pixels, encoding)
    if encoding in ("32FC1", "mono16") or (encoding == "16UC1" and file_format != "png"):
        raise ImageRefused(
            f"encoding {encoding} cannot be compressed as {file_format}, expected 16UC1 as png, "
            "or 8 bits a channel"
        )
    stored = convert(pixels, encoding, "bgr8") if encoding == "rgb8" else pixels
    # What image_transport's compressed_image_transport writes and reads.
    inner = {"rgb8": "bgr8", "bgr8": "bgr8", "mono8": "mono8", "16UC1": ""}[encoding]
    message = CompressedImage(format=f"{encoding}; {file_format} compressed {inner}")
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data = _bytes_field(encode_file(stored, file_format, quality))
    return message


def decompress(message: Any, encoding: str = "") -> Pixels:
    """Return the pixels of a CompressedImage message (JPEG or PNG); see `to_array`.

    Raises:
        ImageRefused: it is no such file, damaged, absurdly large, or not of the encoding.
    """
    stored, _, rest = str(message.format).partition(";")
    if "compressedDepth" in rest:
        raise ImageRefused(f"format is {message.format!r}, expected jpeg or png")
    pixels = decode_file(np.frombuffer(message.data, np.uint8))
    grey = "16UC1" if pixels.dtype == np.uint16 else "mono8"
    held = "bgr8" if pixels.ndim == 3 else grey
    if not encoding:
        natural = "rgb8" if held == "bgr8" else held
        encoding = stored if (held, stored) in _CONVERSIONS or stored == held else natural
    return convert(pixels, held, encoding)


def convert(pixels: Pixels, held: str, wanted: str) -> Pixels:
    """Return pixels of another encoding; the same array where there is nothing to do.

    Raises:
        ImageRefused: there is no such conversion.
    """
    code = _conversion(held, wanted)
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _conversion(held: str, wanted: str) -> int | None:
    """Return OpenCV's code of a conversion, None where there is nothing to do."""
    code = _CONVERSIONS.get((held, wanted))
    if code is None and held != wanted:
        raise ImageRefused(f"encoding is {held}, and cannot be converted to {wanted!r}")
    return code


def _checked_pixels(message: Any) -> Pixels:
    """Return a view [H, W(, 3)] of a message's data, as it lies there."""
    kind = ENCODINGS.get(message.encoding)
    if kind is None:
        raise ImageRefused(
            f"encoding is {message.encoding!r}, expected one of {', '.join(ENCODINGS)} "
            "(cv_bridge, which knows more, is not installed)"
        )
    height, width, step = int(message.height), int(message.width), int(message.step)
    check_size(width, height)
    pixel_bytes = kind.channels * kind.dtype.itemsize
    if not width * pixel_bytes <= step <= 2 * width * pixel_bytes + 4096:
        raise ImageRefused(
            f"step is {step} bytes, expected at least {width * pixel_bytes} for {width} pixels "
            f"{message.encoding} and no more than padding needs"
        )
    if message.is_bigendian not in (0, 1):
        raise ImageRefused(f"is_bigendian is {message.is_bigendian}, expected 0 or 1")
    data = np.frombuffer(message.data, np.uint8)
    if data.size != height * step:
        raise ImageRefused(
            f"data holds {data.size} bytes, expected {height * step} for {height} rows of {step}"
        )
    dtype = kind.dtype.newbyteorder(">" if message.is_bigendian else "<")
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, pixel_bytes)
    if kind.channels > 1:
        shape, strides = (*shape, kind.channels), (*strides, kind.dtype.itemsize)
    return np.ndarray(shape, dtype, data.data, strides=strides)


def _by_bridge(message: Any, encoding: str) -> Pixels:
    check_size(int(message.width), int(message.height))
    try:
        return np.asarray(BRIDGE.imgmsg_to_cv2(message, encoding))
    except Exception as error:  # its own error, and whatever OpenCV, numpy or boost raise in it
        raise ImageRefused(
            f"cv_bridge cannot convert {message.width}x{message.height} {message.encoding!r} to "
            f"{encoding!r}: {error}"
        ) from error


def _checked_array(pixels: Pixels, encoding: str) -> Pixels:
    kind = ENCODINGS.get(encoding)
    if kind is None:
        raise ImageRefused(f"encoding is {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    dimensions = 2 if kind.channels == 1 else 3
    if (
        pixels.ndim != dimensions
        or pixels.dtype != kind.dtype
        or (dimensions == 3 and pixels.shape[2] != kind.channels)
    ):
        raise ImageRefused(
            f"array is {pixels.dtype} {list(pixels.shape)}, expected {kind.dtype} "
            f"{'[H, W]' if dimensions == 2 else '[H, W, 3]'} for {encoding}"
        )
    check_size(pixels.shape[1], pixels.shape[0])
    return pixels


def _bytes_field(data: Any) -> array.array[int]:
    """Return what a uint8[] field takes as it is; anything else it would check byte by byte."""
    field = array.array("B")
    field.frombytes(data)
    return field
