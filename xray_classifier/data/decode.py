"""The one way from an image file to pixels: decode at native depth, crop, resize, intensity, uint8.

Safe to call from many threads; Pillow and NumPy let go of the interpreter while they work.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.boundary import REASONS, check_pixels, decoding, read_bytes, warm_up
from xray_classifier.data.dicom import is_dicom, read_dicom
from xray_classifier.data.film import (
    Film,
    Origin,
    bits_of,
    colour_of,
    container_full_scale,
    film_from_array,
    film_from_floats,
)
from xray_classifier.data.intensity import prepare
from xray_classifier.errors import DecodeError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

__all__ = ["REASONS", "Film", "decode_file", "film_from_array", "prepare", "read_film"]

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""Tried in this order. Others that Pillow knows are left out: EPS, for one, runs Ghostscript."""

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
REDUCTIONS = (8, 4, 2)
STARTS_OF_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP  ")


def decode_file(
    path: Path, size: int, crop: str, intensity: str, for_processing: str = "reject"
) -> NDArray[np.uint8]:
    """One image file as the model sees it: `read_film`, then `prepare`.

    Returns:
        (S, S) uint8.

    Raises:
        DecodeError: The file cannot be used; `reason` is one of `REASONS`.
    """
    return prepare(read_film(path, for_processing), size, crop, intensity)


def read_film(path: Path, for_processing: str = "reject", least_px: int | None = None) -> Film:
    """One image file as grey at its native depth, upright, decoded in full unless told otherwise.

    Colour becomes its BT.601 luma, exactly the channel where all channels are equal. Opaque alpha
    is ignored; fully transparent pixels are padding, others count as they are. White is 255 at
    8 bits, 1.0 for floats, and at 16 bits the smallest of 10, 12, 14 and 16 bits that holds the
    maximum.

    Args:
        path: A PNG, JPEG, TIFF, BMP, GIF, WebP, PNM, JPEG 2000 or DICOM file, whatever its name.
        for_processing: `reject` or `accept` DICOM images that are raw detector data.
        least_px: Decode a JPEG at a half, a quarter or an eighth of its size where no side falls
            below this. That saves most of the time, but is not the mean of the pixels.

    Raises:
        DecodeError: The file cannot be used; `reason` is one of `REASONS`.
    """
    content = read_bytes(path)
    warm_up(is_dicom(content))
    if is_dicom(content):
        return read_dicom(content, for_processing)
    if content.startswith(b"PK\x03\x04") and b".npy" in content[:256]:
        raise DecodeError("multi_image", "an NPZ file holds many images; use it as a data source")
    with decoding():
        return _read_picture(content, least_px)


def _read_picture(content: bytes, least_px: int | None) -> Film:
    with _opened(content) as image:
        if getattr(image, "is_animated", False):
            raise DecodeError("multi_image", "the file holds more than one picture")
        _refuse_lost_depth(image)
        container, mode = str(image.format), image.mode
        luma_alone = container == "JPEG" and mode == "RGB"
        full_shape = image.height, image.width
        size = None if least_px is None else _reduced_size(image, least_px)
        if luma_alone or size is not None:
            image.draft("L", size)  # colour is not decoded only to be dropped
        image.load()
        film = _film(image)
        # After load, for a PNG may end with its EXIF; Pillow turns a TIFF itself.
        orientation = image.getexif().get(0x0112, 1)
        colour = _jpeg_colour(content) if luma_alone else _colour(image)
    mask = None if film.mask is None else _upright(film.mask, orientation)
    origin = Origin(container, mode, bits_of(film.full_scale), colour)
    reduction = round(full_shape[0] / film.pixels.shape[0])
    if reduction > 1:
        return Film(film.pixels, film.full_scale, mask, origin, reduction, full_shape)
    return Film(_upright(film.pixels, orientation), film.full_scale, mask, origin)


def _reduced_size(image: "ImageFile", least_px: int) -> tuple[int, int] | None:
    """Width and height at which an upright JPEG is decoded; None: in full.

    libjpeg can invert a part of each block's cosine transform.
    """
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    if image.getexif().get(0x0112, 1) != 1:
        return None
    short = min(image.size)
    factor = next((f for f in REDUCTIONS if short // f >= least_px), 1)
    return None if factor == 1 else (image.width // factor, image.height // factor)


def _colour(image: "Image.Image") -> float:
    """`colour_of` a loaded picture."""
    if image.mode in ("1", "L", "LA", "La", "F", *SIXTEEN_BIT_MODES):
        return 0.0
    return colour_of(np.asarray(image.convert("RGB")))


def _jpeg_colour(content: bytes) -> float:
    """`colour_of` a JPEG, from a decoding at an eighth of its size."""
    with _opened(content) as image:
        image.draft("RGB", (image.width // 8, image.height // 8))
        return colour_of(np.asarray(image.convert("RGB")), step=1)


def _opened(content: bytes) -> "ImageFile":
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        if content.startswith(STARTS_OF_IMAGES):
            raise DecodeError(
                "unreadable", "a damaged header, or a variant of its format that cannot be read"
            ) from None
        raise
    check_pixels(image.height, image.width)
    return image


def _refuse_lost_depth(image: "ImageFile") -> None:
    """Refuse 16 bits per colour, of which Pillow would keep the upper 8 alone."""
    arguments = image.tile[0].args if image.tile else ""
    rawmode = arguments if isinstance(arguments, str) else str((arguments or ("",))[0])
    if ";16" in rawmode and image.mode not in SIXTEEN_BIT_MODES:
        raise DecodeError("unsupported_mode", "16-bit colour; save the film as 16-bit grey")


def _film(image: "Image.Image") -> Film:
    """The loaded picture as it lies in the file."""
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "F":
        return _deep_film(image)
    clear = image.info.get("transparency")
    if image.mode == "P":
        image = image.convert("RGB" if clear is None else "RGBA")
        clear = None
    elif image.mode in ("PA", "La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "RGBA"):
        return Film(np.asarray(_luma(image)), 255.0, _padding(np.asarray(image.getchannel("A")), 0))
    if clear is not None and image.mode in ("1", "L", "RGB"):
        return Film(np.asarray(_luma(image)), 255.0, _padding(np.asarray(image), clear))
    return Film(np.asarray(_luma(image)), 255.0)


def _deep_film(image: "Image.Image") -> Film:
    """More than 8 bits, or floats; Pillow's own conversion to 8 bits would clip to white."""
    grey = np.asarray(image)
    if image.mode == "F":
        film = film_from_floats(grey)
    else:
        full_scale = container_full_scale(grey)
        clear = image.info.get("transparency")
        mask = _padding(grey, clear) if isinstance(clear, int) else None
        film = Film(grey.astype(np.uint16), full_scale, mask)
    # TIFF tag 262 (PhotometricInterpretation) 0: the lowest value is white. Pillow heeds it at
    # 8 bits only.
    if image.format == "TIFF" and _tiff_tag(image, 262) == 0:
        grey = film.full_scale - film.pixels.astype(np.float32)
        return Film(grey, film.full_scale, film.mask)
    return film


def _tiff_tag(image: "Image.Image", tag: int) -> object:
    return getattr(image, "tag_v2", {}).get(tag)


def _luma(image: "Image.Image") -> "Image.Image":
    """Grey of an 8-bit picture; equal channels give that channel, for the weights add up to 1."""
    if image.mode == "L":
        return image
    if image.mode == "YCbCr":
        return image.getchannel("Y")
    if image.mode == "CMYK":
        return image.convert("RGB").convert("L")
    if image.mode in ("1", "LA", "RGB", "RGBA", "RGBX"):
        return image.convert("L")
    raise DecodeError("unsupported_mode", "a colour space without a luma; save the film as grey")


def _padding(values: NDArray[Any], clear: object) -> NDArray[np.bool_] | None:
    """False where the pixel has the transparent value; None if no pixel has it."""
    differs = values != np.asarray(clear, dtype=np.int64)
    mask = differs.any(axis=-1) if values.ndim == 3 else differs
    return None if mask.all() else np.asarray(mask)


def _upright(grey: NDArray[Any], orientation: object) -> NDArray[Any]:
    """Undo the turn that EXIF tag 0x0112 declares; unknown codes mean upright.

    Source: JEITA CP-3451C (Exif 2.3), 4.6.4 A, Orientation.
    """
    turned = {
        2: grey[:, ::-1],
        3: grey[::-1, ::-1],
        4: grey[::-1],
        5: grey.T,
        6: grey.T[:, ::-1],
        7: grey.T[::-1, ::-1],
        8: grey.T[::-1],
    }
    return turned.get(orientation, grey) if isinstance(orientation, int) else grey
