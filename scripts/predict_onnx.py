"""What `xray-classifier predict` says, from an ONNX file alone: an example to copy.

    pip install numpy onnxruntime pillow
    python predict_onnx.py model.onnx film.png another.jpg

Reads upright or EXIF-turned PNG and JPEG of 8 bits without transparency. Not a medical device.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepare(path: str, size: int, crop: str, intensity: str) -> np.ndarray:
    """A film as the model wants it: grey levels 0 to 255, (1, 1, size, size) float32."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()), formats=["PNG", "JPEG"])
    if image.mode not in ("L", "P", "RGB") or ";16" in str(image.tile):
        sys.exit(f"{path}: neither 8-bit grey nor 8-bit colour")
    if "transparency" in image.info or getattr(image, "is_animated", False):
        sys.exit(f"{path}: transparent, or more than one picture")
    image.draft("L", None)  # of a JPEG the luma as it is stored
    film = np.asarray(ImageOps.exif_transpose(image).convert("RGB").convert("L"), np.float32)
    (height, width), (rows, columns) = film.shape, (size, size)
    if crop == "center":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        film = film[top : top + side, left : left + side]
    elif crop == "pad":
        longer = max(height, width)
        rows, columns = (max(1, (2 * n * size + longer) // (2 * longer)) for n in film.shape)
    scaled = Image.fromarray(film).resize((columns, rows), Image.Resampling.BILINEAR)
    grey = np.asarray(scaled).ravel()
    low, high = grey.min(), grey.max()
    if high - low < 255e-6:
        sys.exit(f"{path}: blank")
    if intensity == "equalize":  # mean rank of each grey value, 0 to 1
        _, place, count = np.unique(grey, return_inverse=True, return_counts=True)
        level = ((np.cumsum(count) - count + (count - 1) / 2) / (grey.size - 1))[place]
    elif intensity == "zscore":
        level = (grey - grey.mean(dtype=np.float64)) / (6 * grey.std(dtype=np.float64)) + 0.5
    else:
        level = (grey - low) / (high - low) if intensity == "minmax" else grey / 255
    levels, top, left = np.zeros((1, 1, size, size)), (size - rows) // 2, (size - columns) // 2
    window = np.rint(np.clip(level, 0, 1) * 255).reshape(rows, columns)
    levels[0, 0, top : top + rows, left : left + columns] = window
    return levels.astype(np.float32)


if len(sys.argv) < 2:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
model = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
for path in sys.argv[2:]:
    output = float(session.run(None, {"images": prepare(path, **model["preprocessing"])})[0][0])
    if model["task"] == "regress":
        print(path, output * model["target"]["std"] + model["target"]["mean"], sep=",")
        continue
    logit = model["calibration"]["slope"] * output + model["calibration"]["intercept"]
    p_sick = float(np.exp(-np.logaddexp(0, -logit)))
    refer, sick = model["refer"], p_sick >= model["threshold"]["value"]
    decision = model["classes"][int(sick)]
    if refer is not None and refer["low"] <= p_sick < refer["high"]:
        decision = "refer"
    print(path, p_sick, decision, sep=",")
