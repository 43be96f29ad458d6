"""The limits within which image files of unknown origin are touched.

A file is looked at before it is opened, a picture is measured before it is decoded, and whatever
goes wrong inside a third-party decoder comes out as one code from `REASONS`. No message repeats
what a decoder said or a header held: both may carry a patient's name.
"""

import contextlib
import errno
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from xray_classifier.errors import DecodeError

REASONS = (
    "not_found",  # no file of that name
    "no_permission",  # the file may not be read
    "read_error",  # the disk or the network drive failed
    "not_a_file",  # a folder, pipe, socket or device
    "empty_file",  # no bytes
    "too_large",  # above MAX_FILE_BYTES, MAX_PIXELS or a limit on headers
    "not_an_image",  # none of the formats that can be read
    "truncated",  # the file ends before its picture does
    "unreadable",  # damaged, or the decoder failed
    "multi_image",  # more than one picture: an NPZ, an animation, many pages or frames
    "unsupported_mode",  # 16 bits per colour, or a colour space without a luma
    "unsupported_syntax",  # a DICOM in a transfer syntax that is not decoded
    "colour_dicom",  # a DICOM that is not grey
    "unsupported_dicom",  # a DICOM whose header makes no sense
    "for_processing",  # raw detector data; data.image.for_processing=accept takes it all the same
    "no_pixels",  # a DICOM without an image
    "bad_shape",  # an array that is not one film
    "ambiguous_range",  # nothing says which value means white
    "blank",  # one grey level only
    "out_of_scope",  # its DICOM header contradicts what the model is meant for
    "outside_root",  # a table of files names it, but it lies outside the table's folder
    "decoder_crashed",  # the process that decoded it died
    "decoder_timeout",  # decoding takes longer than is allowed
    "decoder_memory",  # decoding takes more memory than is allowed, or than there is
)
"""Every `DecodeError.reason`."""

MAX_FILE_BYTES = 512 * 2**20
"""Largest file that is read: over twice an uncompressed 16-bit film of `MAX_PIXELS`."""

NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors that mean that no file has this name."""

MAX_PIXELS = 100_000_000
"""Largest declared rows x columns that are decoded; digital films stay below 40 million."""

DECODER_LOGGERS = (
    "PIL.Image",
    "PIL.ImageFile",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "pydicom",
    "pydicom.pixels.decoders.base",
    "pydicom.pixels.utils",
)

_lock = threading.Lock()
_importing = threading.Lock()
_warm: set[str] = set()
_silence = contextlib.ExitStack()
_inside = 0


def warm_up(dicom: bool) -> None:
    """Import the decoders, one thread at a time: a half-imported package fails in another thread.

    Args:
        dicom: pydicom and GDCM as well; they take a while.
    """
    done = "dicom" if dicom else "pictures"
    if done in _warm:
        return
    with _importing:
        import PIL.Image

        PIL.Image.init()
        if dicom:
            import gdcm  # noqa: F401
            import pydicom.config
            import pydicom.datadict
            import pydicom.dataset
            import pydicom.encaps
            import pydicom.filereader
            import pydicom.multival
            import pydicom.pixels.decoders.base
            import pydicom.uid  # noqa: F401
        _warm.update(("pictures", done))


def check_file(path: Path) -> None:
    """Refuse what should not even be opened: a pipe or a device could block for ever.

    Raises:
        DecodeError: not_found, no_permission, not_a_file, empty_file or too_large.
    """
    with _file_errors():
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("not_a_file", "this is a folder, a pipe or a device, not a file")
    if status.st_size == 0:
        raise DecodeError("empty_file", "the file is empty")
    if status.st_size > MAX_FILE_BYTES:
        raise DecodeError("too_large", f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")


def read_bytes(path: Path, n_bytes: int | None = None) -> bytes:
    """The first `n_bytes` of a file, or all of it.

    Raises:
        DecodeError: As for `check_file`, which is called first; read_error if the disk fails.
    """
    check_file(path)
    with _file_errors(), path.open("rb") as file:
        most = MAX_FILE_BYTES if n_bytes is None else n_bytes
        # Not `most` alone, for `read` takes memory for all that it is asked for.
        return file.read(min(most, os.fstat(file.fileno()).st_size))


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise DecodeError("no_permission", "the file may not be read") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a name with a null byte
        raise DecodeError("not_found", "there is no such file") from error
    except OSError as error:
        if error.errno in NO_SUCH_NAME:
            raise DecodeError("not_found", "there is no such file") from error
        raise DecodeError("read_error", "the operating system could not read the file") from error


def check_pixels(rows: int, columns: int) -> None:
    """Refuse a picture by its declared size, before memory is taken for it.

    Raises:
        DecodeError: too_large; unreadable if a side is not positive.
    """
    if rows < 1 or columns < 1:
        raise DecodeError("unreadable", "the header declares a picture without pixels")
    if rows * columns > MAX_PIXELS:
        raise DecodeError(
            "too_large", f"{columns} x {rows} pixels are more than {MAX_PIXELS // 10**6} million"
        )


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """The decode boundary: inside, decoders are silent and any failure becomes a `DecodeError`.

    Raises:
        DecodeError: Ours as it was raised; a decoder's own failure as too_large, decoder_memory,
            not_an_image, truncated or unreadable.
    """
    with quiet_decoders():
        try:
            yield
        except DecodeError:
            raise
        except ImportError:
            raise  # a broken installation, not a damaged file
        # Damaged files make decoders raise almost anything, SyntaxError and RecursionError among
        # them. `from None`, for their messages can quote the header, and tracebacks are logged.
        except Exception as error:
            raise _as_decode_error(error) from None


def _as_decode_error(error: Exception) -> DecodeError:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return DecodeError("not_an_image", "this is no image in a format that can be read")
    if isinstance(error, Image.DecompressionBombError):
        return DecodeError("too_large", "the picture is too large")
    if isinstance(error, MemoryError):
        return DecodeError("decoder_memory", "decoding it takes too much memory")
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return DecodeError("truncated", "the file ends before its picture does")
    return DecodeError("unreadable", f"the picture is damaged ({type(error).__name__})")


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep Pillow and pydicom from warning and logging: their messages quote header values.

    Python's warning filters belong to the whole process, so the first thread to enter sets them
    and the last to leave puts them back.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _silence.enter_context(_silenced())
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _silence.close()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    # `disabled` rather than a level, which costs 0.2 ms where torch has brought its 500 loggers.
    loggers = [logging.getLogger(name) for name in DECODER_LOGGERS]
    disabled = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, was_disabled in zip(loggers, disabled, strict=True):
                logger.disabled = was_disabled
