"""What a compressed DICOM frame declares of itself, measured before a decoder sees it.

A compressed stream has a size of its own: 64 kB of it may declare 65,535 x 65,535 pixels, or 5 kB
be cut into so many code-blocks that they take 2.5 GB to set up.

Source: JPEG, ITU-T T.81, annex B; JPEG-LS, ITU-T T.87, annex C; JPEG 2000, ITU-T T.800, annex A.
"""

import struct

from xray_classifier.errors import DecodeError

MAX_MARKERS = 20_000
"""Marker segments that are walked, JPEG fill bytes included."""

MAX_TILES = 4096
"""JPEG 2000 tiles; a decoder takes some kB for each, however few pixels it has."""

MAX_LAYERS = 256
"""JPEG 2000 quality layers; every block is visited once for each."""

MAX_BLOCKS = 2**19
"""JPEG 2000 code-blocks and precincts, some 400 bytes each: blocks of 14 x 14 in the largest film
that is decoded; encoders take 64 x 64."""

MAX_LEVELS = 32
"""JPEG 2000 wavelet levels, as the standard has it."""

_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")

_SOS, _APP0 = 0xDA, 0xE0
_TABLES = (0xC4, 0xCC)  # the only ones among the codes of frames
_NOT_BEFORE_A_SCAN = (*range(0xC0), *range(0xD0, 0xDA))

_COD, _COC, _SOT, _SOD, _EOC = 0x52, 0x53, 0x90, 0x93, 0xD9


def check_codestream(syntax: str, frame: memoryview, size: tuple[int, int], allocated: int) -> int:
    """Refuse a compressed frame that is another picture than the elements declare.

    Args:
        syntax: A JPEG, JPEG-LS or JPEG 2000 transfer syntax.
        frame: The codestream.
        size: Rows and Columns in pixels.
        allocated: Bits Allocated.

    Returns:
        Bits of a value by the codestream, 1 to `allocated`; Bits Stored may be fewer or more.

    Raises:
        DecodeError: unreadable; unsupported_dicom for JPEG 2000 in a file format of its own;
            too_large for more or smaller parts than any radiograph has.
    """
    try:
        if syntax in _JPEG_2000:
            *found, components, bits = _jpeg_2000_frame(frame)
            _check_blocks(frame, size)
        else:
            *found, components, bits = _jpeg_frame(frame, is_ls=syntax in _JPEG_LS)
    except (struct.error, IndexError):
        raise _no_codestream() from None
    if tuple(found) != size or components != 1 or not 1 <= bits <= allocated:
        raise another_size()
    return bits


def another_size() -> DecodeError:
    """The refusal of pixels that are not those of the header."""
    return DecodeError("unreadable", "the pixels have another size than the header declares")


def _no_codestream() -> DecodeError:
    return DecodeError("unreadable", "the compressed pixels are not what the transfer syntax says")


def _too_fine() -> DecodeError:
    return DecodeError("too_large", "JPEG 2000 cut into too many tiles, layers or blocks")


def _jpeg_frame(frame: memoryview, is_ls: bool) -> tuple[int, int, int, int]:
    """Rows, columns, components and bits by the frame header of a JPEG or JPEG-LS stream.

    Everything up to the first scan has to be in order: GDCM aborts the process where its JPEG
    library merely warns of what it skipped, or of a JFIF version that it does not know.
    """
    frame_codes = (0xF7,) if is_ls else (0xC0, 0xC1, 0xC2, 0xC3)
    found: tuple[int, int, int, int] | None = None
    at = 2 if bytes(frame[:2]) == b"\xff\xd8" else len(frame)
    for _ in range(MAX_MARKERS):
        code, length = struct.unpack_from(">BH", frame, at + 1)
        if frame[at] != 0xFF or (code != 0xFF and (code in _NOT_BEFORE_A_SCAN or length < 2)):
            break
        if code == _SOS and found:
            return found
        if code == 0xFF:  # fill byte
            at += 1
            continue
        segment = frame[at + 4 : at + 2 + length]
        if code in frame_codes and not found:
            bits, rows, columns, components = struct.unpack_from(">BHHB", segment)
            found = rows, columns, components, bits
        elif (0xC0 <= code <= 0xCF and code not in _TABLES) or code in (0xF7, _SOS):
            break  # a second frame, one of a kind that does not belong here, or a scan of none
        elif code == _APP0 and bytes(segment[:5]) == b"JFIF\0" and segment[5] != 1:
            break
        at += 2 + length
    raise _no_codestream()


def _jpeg_2000_frame(frame: memoryview) -> tuple[int, int, int, int]:
    """Rows, columns, components and bits by the SIZ marker segment."""
    start = bytes(frame[:8])
    if start[4:] == b"jP  ":
        raise DecodeError(
            "unsupported_dicom", "a JP2 file inside a DICOM; save the film uncompressed"
        )
    if start[:4] != b"\xff\x4f\xff\x51":
        raise _no_codestream()
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = (
        struct.unpack_from(">8LH", frame, 8)
    )
    depth, *steps = struct.unpack_from(">3B", frame, 42)
    if not (tile_width and tile_height and left < right and top < bottom and steps == [1, 1]):
        raise _no_codestream()
    across, down = -(-(right - tile_left) // tile_width), -(-(bottom - tile_top) // tile_height)
    if across * down > MAX_TILES:
        raise _too_fine()
    return bottom - top, right - left, components, (depth & 0x7F) + 1


def _check_blocks(frame: memoryview, size: tuple[int, int]) -> None:
    """Walk the headers of a JPEG 2000 stream and of its tile-parts for the sizes of blocks."""
    at, next_tile = 2, len(frame)
    for _ in range(MAX_MARKERS):
        if at + 4 > len(frame) or frame[at] != 0xFF or frame[at + 1] == _EOC:
            return
        code, length = struct.unpack_from(">BH", frame, at + 1)
        if code == _SOD:
            if next_tile <= at:
                return
            at = next_tile
            continue
        if code == _SOT:
            (part_bytes,) = struct.unpack_from(">L", frame, at + 6)
            next_tile = at + part_bytes if part_bytes else len(frame)
        elif code == _COD:
            (layers,) = struct.unpack_from(">H", frame, at + 6)
            _check_style(size, frame[at + 4], frame[at + 9 : at + 2 + length])
            if layers > MAX_LAYERS:
                raise _too_fine()
        elif code == _COC:
            _check_style(size, frame[at + 5], frame[at + 6 : at + 2 + length])
        at += 2 + length
    raise _too_fine()


def _check_style(size: tuple[int, int], flags: int, style: memoryview) -> None:
    """Count code-blocks, resolution by resolution; each precinct holds at least one.

    Args:
        size: Rows and columns in pixels.
        flags: Bit 0: the sizes of precincts are given.
        style: From the number of levels on; sizes are powers of two.
    """
    levels, block_bits = style[0], (style[1] + 2, style[2] + 2)
    if levels > MAX_LEVELS:
        raise _no_codestream()
    n_blocks = 0
    for resolution in range(levels + 1):
        code = style[5 + resolution] if flags & 1 else 0xFF
        precinct_bits = code & 15, code >> 4
        height, width = (-(-side >> (levels - resolution)) for side in size)
        # Above the lowest resolution a precinct is split into bands of half its sides.
        limits = (bits - (resolution > 0) for bits in precinct_bits)
        area_bits = sum(map(min, block_bits, limits))
        n_blocks += height * width >> max(area_bits, 0)
    if n_blocks > MAX_BLOCKS:
        raise _too_fine()
