"""Cell nuclei in fluorescence and stained tissue, each with its mask: Mask R-CNN, EfficientNet-Lite0 + FPN.

keras-rcnn train zoo/nuclei_mrcnn/recipe.py --set data=PATH/TO/nuclei --out runs/nuclei_mrcnn

Result, time and machine: preset.json beside this file; the losses: history.csv.
"""

data = "../shared/data/nuclei"

name = "nuclei_mrcnn"
title = "Nuclei: Mask R-CNN, EfficientNet-Lite0 + FPN, 320 px"
train = {"coco": f"{data}/train.json", "images": f"{data}/train"}
val = {"coco": f"{data}/val.json", "images": f"{data}/val"}
license = "CC0 data (DSB2018 stage 1); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 430 training images of shared/data/nuclei"

masks = True
# microscopy has no upside; other tissues, stains and microscopes have other sizes and colours
augment = ("hflip", "vflip", "rot90", ("color", 0.3, 0.3, 0.4, 0.15), ("scale", 0.7, 1.5))
min_size = 320
max_size = 640
# nuclei are 7 px and more: anchors of 8, 16, 32, 64 and 128 px
anchor_scale = 2.0
# 4 x 96 channels are enough for one class, at a quarter of the paper's arithmetic
mask_head_channels = (96, 96, 96, 96)
# up to 151 nuclei in one training image
max_detections = 300
epochs = 9
batch_size = 2
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
evaluate_every = 3
