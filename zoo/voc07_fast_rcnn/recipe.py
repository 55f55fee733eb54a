"""Fast R-CNN on VOC07 as published (Girshick 2015): mAP 66.9 with VGG16. Not reproduced here.

keras-rcnn train zoo/voc07_fast_rcnn/recipe.py --set data=VOCdevkit/VOC2007
  --set backbone_weights=VGG_ILSVRC_16_layers.caffemodel --out runs/voc07_fast_rcnn
keras-rcnn evaluate runs/voc07_fast_rcnn --voc VOCdevkit/VOC2007 --split test --metric voc07
keras-rcnn compress runs/voc07_fast_rcnn --ranks 1024 256 --voc VOCdevkit/VOC2007 --split test --out runs/svd
"""

data = "VOCdevkit/VOC2007"

name = "voc07_fast_rcnn"
title = "VOC07: Fast R-CNN, VGG16"
train = {"voc": data, "split": "trainval"}

detector = "fast_rcnn"
backbone = "vgg16"
backbone_weights = "VGG_ILSVRC_16_layers.caffemodel"
freeze_at = 2
neck = "C4"
roi_pool = "pool"
min_size = 600
max_size = 1000
box_head_units = (4096, 4096)
box_head_dropout = 0.5
selective_search = {"mode": "fast"}
augment = ("hflip",)
# 40,000 steps of two photos, the last 10,000 at a tenth of the rate
epochs = 16
batch_size = 2
optimizer = "sgd"
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
lr_drop_epochs = (12,)
warmup_steps = 0
weight_decay = 5e-4
clipnorm = None
weights_dtype = "float32"
