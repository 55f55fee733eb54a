"""Reading ahead: the order, how far, errors at their turn, and an early end."""

import threading

import pytest

from keras_rcnn.data.ahead import read_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_everything_comes_in_order(threads):
    assert list(read_ahead(lambda i: i * i, range(20), threads)) == [i * i for i in range(20)]
    assert list(read_ahead(lambda i: i, [], threads)) == []


def test_the_next_item_is_read_while_the_caller_works_and_no_more():
    begun, third = [], threading.Event()

    def read(i):
        begun.append(i)
        if i == 2:
            third.set()
        return i

    items = read_ahead(read, range(100), threads=2)
    assert next(items) == 0
    assert third.wait(10)  # items 1 and 2 are read although nobody has asked for them
    assert begun == [0, 1, 2]
    items.close()


def test_an_error_is_raised_at_its_turn():
    def read(i):
        return 1 // (2 - i)

    items = read_ahead(read, range(5), threads=2)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_what_has_not_begun_is_not_read_after_an_early_end():
    begun, goes_on = [], threading.Event()

    def read(i):
        begun.append(i)
        if i:
            goes_on.wait(10)
        return i

    items = read_ahead(read, range(100), threads=1)
    assert next(items) == 0
    goes_on.set()
    items.close()
    assert set(begun) <= {0, 1}
