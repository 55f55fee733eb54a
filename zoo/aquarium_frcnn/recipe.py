"""Fish, jellyfish, penguins, puffins, sharks, starfish and stingrays: the nuclei recipe's model on 448 images.

keras-rcnn train zoo/aquarium_frcnn/recipe.py --set data=PATH/TO/aquarium --out runs/aquarium_frcnn

Result, time and machine: preset.json beside this file; the losses: history.csv.
"""

data = "../shared/data/aquarium"

name = "aquarium_frcnn"
title = "Aquarium: Faster R-CNN, EfficientNet-Lite0 + FPN, 384 px"
train = {"coco": f"{data}/train.json", "images": f"{data}/train"}
val = {"coco": f"{data}/valid.json", "images": f"{data}/valid"}
license = "CC BY 4.0 data (Roboflow Aquarium); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 448 training images of shared/data/aquarium"

on_bad = "skip"
augment = ("hflip", "color", ("scale", 0.8, 1.4))
min_size = 384
max_size = 512
anchor_scale = 4.0
epochs = 8
batch_size = 2
# at 1e-3, the other recipes' rate, the loss jumps from 1.1 to 2.5 in the second epoch
learning_rate = 4e-4
backbone_lr_multiplier = 1.0
evaluate_every = 2
