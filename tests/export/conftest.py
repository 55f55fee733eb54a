"""Exports that several files look at, each made once."""

import pytest
import tensorflow as tf

import keras_rcnn
from tests.export.detectors import detector, photos, proposals


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Kind -> (model, the export's answer, the loaded signatures)."""
    made = {}

    def get(kind):
        if kind not in made:
            model, path = detector(kind), tmp_path_factory.mktemp(kind) / "served"
            given = [proposals(one) for one in photos()] if model.wants_proposals else None
            result = keras_rcnn.export_model(model, path, photos=photos(), proposals=given)
            made[kind] = model, result, tf.saved_model.load(str(result["path"])).signatures
        return made[kind]

    return get
