"""Tables as people export them, boxes in shares of the image in any format, and data that teaches nothing."""

import numpy as np
import pytest

from keras_rcnn.data import DataError, check_targets, load_voc
from tests.data.user_files import BOXES, coco, content, same_boxes, table, voc

# Tables


def rows(delimiter=",", order="{n}.jpg,{x1},{y1},{x2},{y2},{label}", header="image,x1,y1,x2,y2,label"):
    lines = [header] if header else []
    for n, boxes in BOXES.items():
        for label, (x1, y1, x2, y2) in zip(("red", "blue"), boxes):
            lines.append(order.format(n=n, x1=x1, y1=y1, x2=x2, y2=y2, label=label))
    return "\r\n".join(line.replace(",", delimiter) for line in lines)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["image,x1,y1,x2,y2,label", "Path,XMin,YMin,XMax,YMax,Class", ""])
def test_tables_delimiters_and_headers(folder, delimiter, header):
    same_boxes(table(folder, rows(delimiter, header=header)))


def test_tables_with_other_columns_and_marks(folder):
    tfod = rows(";", "{n}.jpg,160,120,{label},{x1},{y1},{x2},{y2}", "filename,width,height,class,xmin,ymin,xmax,ymax")
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
        same_boxes(table(folder, tfod, encoding))
    same_boxes(table(folder, "sep=;\r\n" + tfod))
    same_boxes(table(folder, rows(order="{label},{x1},{y1},{x2},{y2},{n}.jpg", header="")))
    same_boxes(
        table(folder, rows(order="{n},{label},7,{x1},{y1},{x2},{y2}", header=""), columns="image,label,,x1,y1,x2,y2")
    )
    with pytest.raises(DataError, match=r"7 columns .* name them by columns="):
        table(folder, rows(order="{n},{label},7,{x1},{y1},{x2},{y2}", header=""))
    with pytest.raises(ValueError, match="there is none for label"):
        table(folder, rows(), columns=["image", "x1", "y1", "x2", "y2"])


def test_tables_whose_classes_are_called_as_columns_are(folder):
    text = rows(header="").replace("red", "left").replace("blue", "name")
    assert table(folder, text).class_names == ["left", "name"]


def test_decimal_commas_and_windows_letters(folder, caplog):
    text = rows(";", "{n}.jpg,{x1}.5,{y1}.5,{x2}.5,{y2}.5,{label}").replace(".5", ",5").replace("red", "grün")
    dataset = table(folder, text, "cp1252")
    np.testing.assert_array_equal(dataset[0].boxes, np.array(BOXES["000"]) + 0.5)
    assert dataset.class_names == ["blue", "grün"] and "read as cp1252" in caplog.text
    assert table(folder, text, "latin-1", encoding="latin-1").class_names == ["blue", "grün"]
    with pytest.raises(DataError, match="t.csv: cannot be read as nonsense"):
        table(folder, text, encoding="nonsense")


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_a_quotation_mark_that_is_not_closed_is_no_class(folder, on_bad):
    text = rows().replace("red", '"red', 1)
    with pytest.raises(DataError, match="t.csv: .*quotation mark"):
        table(folder, text, on_bad=on_bad)


def test_a_quotation_mark_that_a_later_one_closes(folder):
    text = rows().replace("red", '"red', 1)[:-4] + 'blue"'  # the rows between them are one cell
    with pytest.raises(DataError, match="t.csv: 1 bad .*\n.*row 5: a cell over several lines .*quotation mark"):
        table(folder, text + "\r\n001.jpg,5,8,35,43,red")
    dataset = table(folder, text + "\r\n001.jpg,5,8,35,43,red", on_bad="skip")
    assert dataset.class_names == ["red"] and len(dataset) == 1 and len(dataset.bad) == 1
    quoted = rows(order='"{n}.jpg",{x1},{y1},{x2},{y2},"{label}"')
    same_boxes(table(folder, quoted))


def test_rows_without_an_object(folder):
    dataset = table(folder, "image,x1,y1,x2,y2,label\n000.jpg,25,19,53,48,red\n001.jpg,0,0,0,0,\n")
    assert [len(record.boxes) for record in dataset] == [1, 0]


# Boxes in shares of the image


def relative(folder, kind, **kwargs):
    share = {n: (np.array(boxes) / [160, 120, 160, 120]).tolist() for n, boxes in BOXES.items()}
    if kind == "coco":
        data = content(annotations={"segmentation": []})
        shares = [box for boxes in share.values() for box in boxes]
        for item, (x1, y1, x2, y2) in zip(data["annotations"], shares):
            item["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        return coco(folder, data, **kwargs)
    if kind == "csv":
        lines = [f"{n}.jpg,{','.join(map(str, box))},{c}" for n in share for box, c in zip(share[n], ("red", "blue"))]
        return table(folder, "\n".join(lines), **kwargs)
    for n, boxes in share.items():
        objects = "".join(
            f"<object><name>{c}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}"
            "</ymax></bndbox></object>"
            for b, c in zip(boxes, ("red", "blue"))
        )
        (folder / "photos" / f"{n}.xml").write_text(f"<annotation>{objects}</annotation>")
    return load_voc(folder, **kwargs)


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_relative_boxes(folder, kind):
    for on_bad in ("error", "skip"):
        with pytest.raises(DataError, match=r"4 of 4 boxes lie in 0\.\.1.* pass relative=True"):
            relative(folder, kind, on_bad=on_bad)
    same_boxes(relative(folder, kind, relative=True), atol=1e-4)


def test_relative_polygons(folder):
    data = content(
        annotations={"bbox": None, "segmentation": lambda one: [(np.array(one[0]) / ([160, 120] * 4)).tolist()]}
    )
    with pytest.raises(DataError, match="relative=True"):
        coco(folder, data)
    dataset = coco(folder, data, relative=True)
    same_boxes(dataset, atol=1e-4)
    np.testing.assert_allclose(dataset[0].segmentations[0], content()["annotations"][0]["segmentation"], atol=1e-9)


# Nothing to learn


def test_nothing_to_learn_says_why(folder, caplog):
    for data, on_bad, message in (
        (content(annotations={"iscrowd": 1}), "error", "4 of 4 objects are crowd"),
        (content(annotations=[]), "error", "2 of 2 images have no objects"),
        (content(annotations={"bbox": [1, 1, 0, 0]}), "skip", "4 of 4 objects and images were skipped"),
        (content(annotations={"category_id": 9}), "skip", "4 of 4 objects and images were skipped"),
    ):
        with pytest.raises(DataError, match=f"coco.json: there is nothing to learn: .*{message}"):
            check_targets(coco(folder, data, on_bad=on_bad))
    check_targets(coco(folder, content(annotations={"iscrowd": 1}), crowd_as_objects=True))
    data = content(annotations={"iscrowd": 1})
    data["annotations"][0]["iscrowd"] = 0
    caplog.clear()
    check_targets(coco(folder, data))
    assert "3 of 4 objects are crowd" in caplog.text
    caplog.clear()
    check_targets(coco(folder))
    assert not caplog.records


def test_all_difficult(folder):
    voc(folder)
    for path in (folder / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("</name>", "</name><difficult>1</difficult>"))
    dataset = load_voc(folder)
    with pytest.raises(DataError, match="4 of 4 objects are difficult"):
        check_targets(dataset)
    check_targets(dataset, difficult=True)
    check_targets(load_voc(folder, difficult_as_objects=True))
