"""Random weights with the names and shapes that Matterport's Mask_RCNN has, of few channels where that is possible."""

import numpy as np

from keras_rcnn.convert.matterport import BLOCKS


def random_layers(classes=3, width=8, units=16, ratios=3, depth=50, seed=0):
    """{layer: {weight: array}} as `read_keras_h5` returns it; `classes` counts the background."""
    rng, layers = np.random.default_rng(seed), {}

    def weighted(name, *shape):
        kernel = rng.standard_normal(shape, dtype=np.float32) * np.float32((2 / np.prod(shape[:-1])) ** 0.5)
        outputs = shape[-2] if name == "mrcnn_mask_deconv" else shape[-1]
        layers[name] = {"kernel": kernel, "bias": rng.standard_normal(outputs, dtype=np.float32)}

    def normed(name, channels):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        layers[name] = {key: rng.uniform(0.5, 1, channels).astype(np.float32) for key in names}

    weighted("conv1", 7, 7, 3, 64)
    normed("bn_conv1", 64)
    channels = 64
    for stage, count in enumerate(BLOCKS[depth], start=2):
        inner = 16 * 2**stage
        for block in range(count):
            branch = f"{stage}{chr(97 + block)}_branch"
            shapes = {"2a": (1, 1, channels, inner), "2b": (3, 3, inner, inner), "2c": (1, 1, inner, 4 * inner)}
            shapes |= {"1": (1, 1, channels, 4 * inner)} if block == 0 else {}
            for key, shape in shapes.items():
                weighted(f"res{branch}{key}", *shape)
                normed(f"bn{branch}{key}", shape[-1])
            channels = 4 * inner
        weighted(f"fpn_c{stage}p{stage}", 1, 1, channels, width)
        weighted(f"fpn_p{stage}", 3, 3, width, width)
    weighted("rpn_conv_shared", 3, 3, width, 512)
    weighted("rpn_class_raw", 1, 1, 512, 2 * ratios)
    weighted("rpn_bbox_pred", 1, 1, 512, 4 * ratios)
    weighted("mrcnn_class_conv1", 7, 7, width, units)
    weighted("mrcnn_class_conv2", 1, 1, units, units)
    weighted("mrcnn_class_logits", units, classes)
    weighted("mrcnn_bbox_fc", units, 4 * classes)
    for i in (1, 2):
        normed(f"mrcnn_class_bn{i}", units)
    for i in range(1, 5):
        weighted(f"mrcnn_mask_conv{i}", 3, 3, width if i == 1 else 256, 256)
        normed(f"mrcnn_mask_bn{i}", 256)
    weighted("mrcnn_mask_deconv", 2, 2, 256, 256)
    weighted("mrcnn_mask", 1, 1, 256, classes)
    return layers
