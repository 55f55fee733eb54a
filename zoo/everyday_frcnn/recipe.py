"""Dogs, cats, people, sheep, horses, cows and other things of everyday photos: Faster R-CNN, EfficientNet-Lite0 + FPN.

keras-rcnn train zoo/everyday_frcnn/recipe.py --set data=PATH/TO/voc_everyday --minutes 85 --out runs/everyday_frcnn

Result, time and machine: preset.json beside this file; the losses: history.csv.
"""

data = "../shared/data/voc_everyday"

name = "everyday_frcnn"
title = "Everyday photos: Faster R-CNN, EfficientNet-Lite0 + FPN, 320 px"
train = {"coco": f"{data}/train.json", "images": f"{data}/train"}
val = {"coco": f"{data}/val.json", "images": f"{data}/val"}
license = "trained on Pascal VOC 2012 photos (Flickr's terms); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 2,726 training images of shared/data/voc_everyday"

augment = ("hflip", "color", ("scale", 0.7, 1.4))
min_size = 320
max_size = 480
# the objects are large, 160 px in the median: no map of stride 4, and anchors of 48 to 384 px
fpn_from = "C3"
anchor_scale = 6.0
epochs = 8
batch_size = 4
learning_rate = 7e-4
ema_momentum = 0.999
evaluate_every = 2
