"""Files in, padded batches out."""

from keras_rcnn.data import augment
from keras_rcnn.data.batches import Batches, as_tf_dataset
from keras_rcnn.data.coco import load_coco
from keras_rcnn.data.images import ImageError, read_image
from keras_rcnn.data.loading import load, splits
from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.data.preprocess import Preprocessor, scale_boxes
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.proposal_files import load_proposals, save_proposals
from keras_rcnn.data.proposals import ProposalSet, compute_proposals, proposal_recall, selective_search
from keras_rcnn.data.ready import check_images, check_masks, check_targets
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.data.saving import save_coco
from keras_rcnn.data.table import load_csv
from keras_rcnn.data.voc import load_voc

__all__ = [
    "Batches",
    "DataError",
    "Dataset",
    "ImageError",
    "MatterportPreprocessor",
    "Preprocessor",
    "ProposalSet",
    "Record",
    "as_tf_dataset",
    "augment",
    "check_images",
    "check_masks",
    "check_targets",
    "compute_proposals",
    "load",
    "load_coco",
    "load_csv",
    "load_proposals",
    "load_voc",
    "proposal_recall",
    "read_image",
    "save_coco",
    "save_proposals",
    "scale_boxes",
    "selective_search",
    "splits",
]
