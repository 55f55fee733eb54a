"""Dates, figs and hazelnuts: a first data set of one's own, 18 photos, from the nuclei Mask R-CNN's weights.

keras-rcnn train zoo/fruits_mrcnn/recipe.py --set data=PATH/TO/fruits_nuts --out runs/fruits_mrcnn

Result, time and machine: preset.json beside this file; the losses: history.csv.
"""

data = "../shared/data/fruits_nuts"

name = "fruits_mrcnn"
title = "Dates, figs, hazelnuts: the nuclei Mask R-CNN, fine-tuned on 14 photos"
train = {"coco": f"{data}/trainval.json", "images": f"{data}/images"}
# there is no other list of photos: 4 of the 18 are kept to measure on
val_fraction = 0.2
license = "MIT-type data (fruits_nuts); ImageNet weights Apache-2.0"
source = "fine-tuned by recipe.py on 14 of the 18 photos of shared/data/fruits_nuts"

base = "nuclei_mrcnn"
# seen from above, and from every side
augment = ("hflip", "vflip", "rot90", "color", ("scale", 0.7, 1.4))
epochs = 40
batch_size = 2
learning_rate = 5e-4
backbone_lr_multiplier = 1.0
warmup_steps = 30
evaluate_every = 10
