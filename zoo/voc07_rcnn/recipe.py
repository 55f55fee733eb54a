"""R-CNN on VOC07 as published (Girshick et al. 2014): mAP 58.5 with CaffeNet, 66.0 with VGG16. Not reproduced here.

keras-rcnn train zoo/voc07_rcnn/recipe.py --set data=VOCdevkit/VOC2007
  --set backbone_weights=bvlc_reference_caffenet.caffemodel --out runs/voc07_rcnn
keras-rcnn evaluate runs/voc07_rcnn --voc VOCdevkit/VOC2007 --split test --metric voc07

For VGG16, --set backbone=vgg16 --set crop=224 with VGG_ILSVRC_16_layers.caffemodel.
"""

data = "VOCdevkit/VOC2007"

name = "voc07_rcnn"
title = "VOC07: R-CNN, CaffeNet"
train = {"voc": data, "split": "trainval"}

detector = "rcnn"
backbone = "caffenet"
backbone_weights = "bvlc_reference_caffenet.caffemodel"
freeze_at = 0
# photos as they are: their longer side is 500
min_size = 500
max_size = 500
region_size = 227
region_context = 16
box_head_units = (4096, 4096)
box_head_dropout = 0.5
selective_search = {"mode": "fast"}
augment = ("hflip",)
# 50,000 steps of 32 positive and 96 other regions of two photos; a tenth of the rate after every 20,000
epochs = 20
batch_size = 2
optimizer = "sgd"
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
lr_drop_epochs = (8, 16)
warmup_steps = 0
weight_decay = 5e-4
clipnorm = None
weights_dtype = "float32"
