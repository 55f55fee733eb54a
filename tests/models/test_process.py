"""A detector in processes of several kinds."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, sys
import numpy as np

def work(answers, model, way):
    try:
        if model is None:
            from tests.models.tiny import tiny_detector
            model = tiny_detector()
        photo = np.zeros((50, 60, 3), np.uint8)
        if way == "call":
            model(model.preprocessor.batch([photo]))
        else:
            model.detect(photo, score=0.0)
        answers.put(True)
    except RuntimeError as error:
        answers.put(str(error))

if __name__ == "__main__":
    how, before, way = sys.argv[1:]
    model = None
    if before == "used":
        from tests.models.tiny import tiny_detector
        model = tiny_detector()
    context = multiprocessing.get_context(how)
    answers = context.Queue()
    process = context.Process(target=work, args=(answers, model if how == "fork" else None, way))
    process.start()
    print(answers.get(timeout=100))
    process.join(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "before", "way", "said"),
    [
        ("fork", "used", "detect", "Start processes by spawn"),
        ("fork", "used", "call", "Start processes by spawn"),
        ("fork", "unused", "detect", "True"),
        ("spawn", "used", "detect", "True"),
    ],
)
def test_a_child_answers_or_says_why_not(how, before, way, said, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = {"PYTHONPATH": ":".join(one for one in sys.path if one)}
    command = [sys.executable, str(script), how, before, way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | path)
    assert said in done.stdout, done.stderr[-2000:]
