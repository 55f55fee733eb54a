"""Second implementations in numpy: one image, one box, one pixel at a time, as the papers say it; slow and obvious.

Boxes are xyxy px; an image's ground truth is boxes [G, 4] with labels [G], where label -1 is padding.
"""

import math

import numpy as np

ONES = (1.0, 1.0, 1.0, 1.0)


# === Boxes ===


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a, b):
    """Intersection over union of two boxes, as float32; 0 where they do not meet."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return np.float32(0)
    return np.float32(width * height / (area(a) + area(b) - width * height))


def encode(box, anchor, weights=ONES):
    """R-CNN's t_x, t_y, t_w, t_h, times the weights."""
    w, h, wa, ha = box[2] - box[0], box[3] - box[1], anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y, xa, ya = box[0] + w / 2, box[1] + h / 2, anchor[0] + wa / 2, anchor[1] + ha / 2
    return np.array([(x - xa) / wa, (y - ya) / ha, math.log(w / wa), math.log(h / ha)]) * weights


def decode(deltas, anchor, weights=ONES):
    """The inverse of `encode`; no box grows more than 1000 / 16 times."""
    dx, dy, dw, dh = np.array(deltas, np.float64) / weights
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = anchor[0] + w / 2 + dx * w, anchor[1] + h / 2 + dy * h
    w, h = w * min(math.exp(dw), 1000 / 16), h * min(math.exp(dh), 1000 / 16)
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def clip(box, image_size):
    height, width = image_size
    return np.array([min(max(v, 0), limit) for v, limit in zip(box, (width, height, width, height))])


def big_enough(box, min_size):
    return box[2] - box[0] >= min_size and box[3] - box[1] >= min_size


def nms(found, threshold):
    """Greedy NMS of a list of (score, box, ...): best first, each kept that no better one overlaps by more."""
    kept = []
    for one in sorted(found, key=lambda f: -f[0]):
        if all(iou(one[1], other[1]) <= threshold for other in kept):
            kept.append(one)
    return kept


def anchors(sizes, ratios, map_size, image_size, rounded):
    """All anchors of a map, row by row; in a cell the ratios outermost."""
    found = []
    for row in range(map_size[0]):
        for column in range(map_size[1]):
            y, x = row * (image_size[0] // map_size[0]), column * (image_size[1] // map_size[1])
            for ratio in ratios:
                for size in sizes:
                    w, h = size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2
                    if rounded:
                        w, h = round(w), round(h)
                    found.append([x - w, y - h, x + w, y + h])
    return np.array(found)


# === From the heads to boxes ===


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def proposals(levels, image_size, pre, post, iou_threshold, score_threshold, min_size):
    """One image's proposals from its levels (anchors, logits, deltas): boxes [post, 4] and scores [post]."""
    found = []
    for level_anchors, logits, deltas in levels:
        candidates = []
        for i in np.argsort(-logits, kind="stable")[:pre]:
            box, score = clip(decode(deltas[i], level_anchors[i]), image_size), sigmoid(logits[i])
            if score >= score_threshold and big_enough(box, min_size):
                candidates.append((score, box))
        found += nms(candidates, iou_threshold)
    boxes, scores = np.zeros((post, 4)), np.zeros(post)
    for i, (score, box) in enumerate(sorted(found, key=lambda f: -f[0])[:post]):
        boxes[i], scores[i] = box, score
    return boxes, scores


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x))
    return e / e.sum()


def detections(logits, deltas, regions, image_size, score_threshold, iou_threshold, most, min_size, weights):
    """One image's boxes [most, 4], scores [most] and labels [most]; background is the last column of the logits."""
    classes, found = logits.shape[-1] - 1, []
    for k in range(classes):
        candidates = []
        for r, region in enumerate(regions):
            box = clip(decode(deltas[r, k if deltas.shape[1] > 1 else 0], region, weights), image_size)
            score = softmax(logits[r])[k]
            if area(region) > 0 and score > score_threshold and big_enough(box, min_size):
                candidates.append((score, box, k))
        found += nms(candidates, iou_threshold)
    boxes, scores, labels = np.zeros((most, 4)), np.zeros(most), np.full(most, -1)
    for i, (score, box, label) in enumerate(sorted(found, key=lambda f: -f[0])[:most]):
        boxes[i], scores[i], labels[i] = box, score, label
    return boxes, scores, labels


def detected_masks(logits, labels):
    """Probabilities [D, M, M] from logits [D, M, M, K or 1], each detection's of its own class."""
    return np.stack([sigmoid(m[..., max(label, 0) if m.shape[-1] > 1 else 0]) for m, label in zip(logits, labels)])


# === Targets ===


def best_truth(box, truths, labels):
    """The IoU with the ground truth that fits best, and its index: the first of equals; -1 without ground truth."""
    best, index = -1, -1
    for g, truth in enumerate(truths):
        if labels[g] >= 0 and iou(box, truth) > best:
            best, index = iou(box, truth), g
    return best, index


def inside(box, image_size, border):
    height, width = image_size
    return box[0] >= -border and box[1] >= -border and box[2] <= width + border and box[3] <= height + border


def rpn_targets(
    anchors, truths, labels, image_size, foreground, background, count, positive_fraction, border=None, guard=True
):
    """One image's labels [A] (1, 0, -1) and deltas [A, 4]; the first candidates are the sampled ones."""
    takes_part = [border is None or inside(a, image_size, border) for a in anchors]
    matches = [best_truth(a, truths, labels) for a in anchors]
    positive = [ok and best >= foreground for ok, (best, _) in zip(takes_part, matches)]
    negative = [ok and best < background for ok, (best, _) in zip(takes_part, matches)]
    for truth, label in zip(truths, labels):
        overlaps = [iou(a, truth) if ok else -1 for a, ok in zip(anchors, takes_part)]
        highest = max(overlaps)
        if label < 0 or highest < 0 or (guard and highest == 0):
            continue
        for i, overlap in enumerate(overlaps):
            if overlap == highest:
                positive[i], negative[i] = True, False
    chosen = [i for i in range(len(anchors)) if positive[i]][: int(count * positive_fraction)]
    others = [i for i in range(len(anchors)) if negative[i]][: count - len(chosen)]
    answer, deltas = np.full(len(anchors), -1), np.zeros((len(anchors), 4))
    answer[others] = 0
    for i in chosen:
        truth = truths[matches[i][1]]
        answer[i] = 1
        if area(truth) > 0:
            deltas[i] = encode(truth, anchors[i])
    return answer, deltas


def box_targets(
    regions, truths, labels, num_classes, count, positive_fraction, foreground, background, add_truth, weights
):
    """One image's regions [S, 4], labels [S], deltas [S, 4], and truth [S], -1 where the region is not positive."""
    candidates = [*regions, *truths] if add_truth else list(regions)
    candidates = [c for c in candidates if area(c) > 0]
    matches = [best_truth(c, truths, labels) for c in candidates]
    positive = [i for i, (best, _) in enumerate(matches) if best >= foreground]
    negative = [i for i, (best, _) in enumerate(matches) if background[0] <= max(best, 0) and best < background[1]]
    positive = positive[: int(count * positive_fraction)]
    negative = negative[: count - len(positive)]
    answer = {
        "boxes": np.zeros((count, 4)),
        "labels": np.full(count, -1),
        "deltas": np.zeros((count, 4)),
        "truth": np.full(count, -1),
    }
    for row, i in enumerate(positive + negative):
        answer["boxes"][row], answer["labels"][row] = candidates[i], num_classes
        if i in positive:
            g = matches[i][1]
            answer["labels"][row], answer["truth"][row] = labels[g], g
            answer["deltas"][row] = encode(truths[g], candidates[i], weights)
    return answer


def mask_target(mask, frame, region, size, aligned=True):
    """The mask [M, M'], stretched over its frame, as the region sees it: [size, size], by RoIAlign.

    A cell's value is that of its middle; torchvision takes a pixel's to be that of its corner.
    """
    rows, columns = mask.shape
    scale = np.array([columns / (frame[2] - frame[0]), rows / (frame[3] - frame[1])] * 2)
    local = (np.array(region, np.float64) - [frame[0], frame[1]] * 2 + (0 if aligned else 0.5)) * scale - 0.5
    return roi_align(mask[..., None], local, 1.0, size, samples=0, aligned=False)[..., 0]


# === Features of regions ===


def bilinear(features, y, x):
    """The map [H, W, C] at a point; 0 farther than a cell outside."""
    height, width, channels = features.shape
    if y < -1 or x < -1 or y > height or x > width:
        return np.zeros(channels)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1, dy, dx = min(y0 + 1, height - 1), min(x0 + 1, width - 1), y - y0, x - x0
    above = (1 - dx) * features[y0, x0] + dx * features[y0, x1]
    below = (1 - dx) * features[y1, x0] + dx * features[y1, x1]
    return (1 - dy) * above + dy * below


def roi_align(features, box, scale, size, samples, aligned):
    """[size, size, C]: each bin the mean of samples x samples points; samples=0 takes as many as a bin has cells."""
    x1, y1, x2, y2 = np.array(box, np.float64) * scale - (0.5 if aligned else 0)
    w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
    down, across = (samples, samples) if samples else (math.ceil(h / size), math.ceil(w / size))
    answer = np.zeros((size, size, features.shape[-1]))
    for i in range(size):
        for j in range(size):
            for p in range(down):
                for q in range(across):
                    y, x = y1 + h / size * (i + (p + 0.5) / down), x1 + w / size * (j + (q + 0.5) / across)
                    answer[i, j] += bilinear(features, y, x) / (down * across)
    return answer


def level(box, lowest, highest, canonical_size, canonical_level):
    """FPN, eq. 1."""
    side = math.sqrt(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))
    if side == 0:
        return lowest
    return min(max(math.floor(canonical_level + math.log2(side / canonical_size) + 1e-6), lowest), highest)


def roi_pool(features, box, scale, size):
    """[size, size, C]: the maximum of each bin's cells; corners rounded half up, the far ones included."""
    x1, y1, x2, y2 = (math.floor(v * scale + 0.5) for v in box)
    w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    answer = np.zeros((size, size, features.shape[-1]))
    for i in range(size):
        for j in range(size):
            rows = range(y1 + i * h // size, y1 + -(-(i + 1) * h // size))
            columns = range(x1 + j * w // size, x1 + -(-(j + 1) * w // size))
            cells = [
                features[y, x]
                for y in rows
                for x in columns
                if 0 <= y < features.shape[0] and 0 <= x < features.shape[1]
            ]
            if cells:
                answer[i, j] = np.max(cells, axis=0)
    return answer


# === Losses ===


def smooth_l1(prediction, target, beta):
    error = np.abs(np.asarray(prediction, np.float64) - target)
    return sum(0.5 * e * e / beta if e < beta else e - beta / 2 for e in error)


def logistic(logit, target):
    p = sigmoid(logit)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def rpn_losses(logits, deltas, labels, targets, beta):
    """Of a whole batch: (objectness, boxes), summed over the sampled anchors, and their number."""
    cls = box = sampled = 0
    for b in range(len(labels)):
        for a, label in enumerate(labels[b]):
            if label >= 0:
                sampled += 1
                cls += logistic(logits[b, a], label)
            if label == 1:
                box += smooth_l1(deltas[b, a], targets[b, a], beta)
    return cls, box, sampled


def box_losses(logits, deltas, labels, targets, beta):
    """Of a whole batch: (classification, boxes), summed over the regions, and their number."""
    background = logits.shape[-1] - 1
    cls = box = regions = 0
    for b in range(len(labels)):
        for r, label in enumerate(labels[b]):
            if label < 0:
                continue
            regions += 1
            cls -= np.log(softmax(logits[b, r])[label])
            if label < background:
                box += smooth_l1(deltas[b, r, label if deltas.shape[2] > 1 else 0], targets[b, r], beta)
    return cls, box, regions


def mask_loss(logits, labels, targets):
    """Of a whole batch: the mean over the positive regions of the mean over their pixels."""
    each = []
    for b in range(len(labels)):
        for r, label in enumerate(labels[b]):
            if label >= 0:
                each.append(logistic(logits[b, r, ..., label if logits.shape[-1] > 1 else 0], targets[b, r]).mean())
    return np.mean(each) if each else 0.0
