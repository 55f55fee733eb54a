"""Faster R-CNN on VOC07 as published (Ren et al. 2015), joint training: mAP 69.9 with VGG16. Not reproduced here.

keras-rcnn train zoo/voc07_faster_rcnn/recipe.py --set data=VOCdevkit/VOC2007
  --set backbone_weights=VGG_ILSVRC_16_layers.caffemodel --out runs/voc07_faster_rcnn
keras-rcnn evaluate runs/voc07_faster_rcnn --voc VOCdevkit/VOC2007 --split test --metric voc07

The four steps of the paper instead: --set "alternating=(16, 16, 16, 16)", the paper's 80,000 and 40,000 steps, twice.
"""

data = "VOCdevkit/VOC2007"

name = "voc07_faster_rcnn"
title = "VOC07: Faster R-CNN, VGG16"
train = {"voc": data, "split": "trainval"}

detector = "faster_rcnn"
backbone = "vgg16"
backbone_weights = "VGG_ILSVRC_16_layers.caffemodel"
freeze_at = 2
neck = "C4"
roi_pool = "pool"
min_size = 600
max_size = 1000
# 128, 256 and 512 px at stride 16; those that cross the border are not learned from
anchor_scale = 8.0
anchor_border = 0
pre_nms_proposals = (12000, 6000)
post_nms_proposals = (2000, 300)
roi_samples = 128
nms_iou = 0.3
box_head_units = (4096, 4096)
box_head_dropout = 0.5
augment = ("hflip",)
# 70,000 steps of one photo, the last 20,000 at a tenth of the rate
epochs = 14
batch_size = 1
optimizer = "sgd"
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
lr_drop_epochs = (10,)
warmup_steps = 0
weight_decay = 5e-4
clipnorm = None
weights_dtype = "float32"
