# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG files in memory, their size known before they are decoded."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 16384  # pixels
MAX_PIXELS = 2**25  # 8K is 33 million
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Frame headers of JPEG (ITU-T T.81, table B.1): SOF0 to SOF15 without DHT, JPG and DAC.
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageRefused(ValueError):
    """An image is not what it says, or nothing that can be worked with."""


def check_size(width: int, height: int) -> None:
    """Refuse an empty or absurdly large image, before memory is taken for it."""
    if width < 1 or height < 1:
        raise ImageRefused(f"image is empty: {width}x{height} pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageRefused(
            f"image is {width}x{height} pixels, expected at most {MAX_SIDE} a side and "
            f"{MAX_PIXELS} in all"
        )


def encode_file(pixels: NDArray[Any], file_format: str, quality: int = 90) -> bytes:
    """Return a JPEG or PNG file of pixels [H, W] or, blue first, [H, W, 3].

    Raises:
        ImageRefused: the format or the quality is unknown, or OpenCV cannot write the image.
    """
    if file_format not in ("jpeg", "png"):
        raise ImageRefused(f"format is {file_format!r}, expected jpeg or png")
    if not 1 <= quality <= 100:
        raise ImageRefused(f"quality is {quality}, expected 1 to 100")
    # PNG's level 1 takes a third of the time of the default and a tenth more bytes.
    options = (
        [cv2.IMWRITE_JPEG_QUALITY, quality]
        if file_format == "jpeg"
        else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    is_written, data = cv2.imencode(f".{file_format}", pixels, options)
    if not is_written:
        raise ImageRefused(f"OpenCV cannot write {pixels.dtype} {pixels.shape} as {file_format}")
    return data.tobytes()


def decode_file(data: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the pixels of a JPEG or PNG file: uint8 or uint16 [H, W], or, blue first, [H, W, 3].

    Raises:
        ImageRefused: it is neither, damaged, absurdly large, or has more than 8 bits of colour.
    """
    width, height = file_size(data)
    check_size(width, height)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageRefused(f"image of {data.size} bytes cannot be decoded: {error}") from error
    if pixels is None:
        raise ImageRefused(f"image of {data.size} bytes, {width}x{height}, cannot be decoded")
    is_known = (pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)) or (
        pixels.shape[2:] == (3,) and pixels.dtype == np.uint8
    )
    if not is_known or pixels.shape[:2] != (height, width):
        raise ImageRefused(
            f"file holds {pixels.dtype} {list(pixels.shape)}, expected {height} rows of {width} "
            "pixels: grey of 8 or 16 bits, or three colours of 8"
        )
    return pixels


def file_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Return width and height that a JPEG or PNG file's header tells.

    Raises:
        ImageRefused: it is neither, or ends before its size.
    """
    head = data[:24].tobytes()
    if head.startswith(_PNG):
        if len(head) < 24 or head[12:16] != b"IHDR":
            raise ImageRefused(f"PNG of {data.size} bytes ends before its size")
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if head.startswith(_JPEG):
        return _jpeg_size(data)
    raise ImageRefused(
        f"compressed image of {data.size} bytes begins with {head[:8].hex() or 'nothing'}, "
        "expected a JPEG or PNG file"
    )


def _jpeg_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    at = 2
    while at + 9 <= data.size and data[at] == 0xFF:
        marker = int(data[at + 1])
        if marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9].tobytes())
            return width, height
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4].tobytes())[0]
    raise ImageRefused(f"JPEG of {data.size} bytes ends before its size")
