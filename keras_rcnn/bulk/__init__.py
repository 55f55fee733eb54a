"""Collections larger than a machine: photos on disk in, one table out, with a row for each photo."""

from keras_rcnn.bulk.detect import Summary, detect_files
from keras_rcnn.bulk.joining import merge_tables
from keras_rcnn.bulk.listing import list_photos
from keras_rcnn.bulk.rows import PhotoRow, rows_of
from keras_rcnn.bulk.tables import read_rows

__all__ = ["PhotoRow", "Summary", "detect_files", "list_photos", "merge_tables", "read_rows", "rows_of"]
