"""The garbage collector is off, or passes over what was there, inside and only inside."""

import gc
import weakref

import pytest

from bench.collector import paused, set_aside


class Node:
    """Two of them that know each other are garbage that only the collector finds."""

    other: "Node"


def pair() -> "weakref.ref[Node]":
    one, two = Node(), Node()
    one.other, two.other = two, one
    return weakref.ref(one)


def test_nothing_is_collected_by_itself_while_paused() -> None:
    gc.collect()
    with paused():
        lost = pair()
        kept = [Node() for _ in range(20 * gc.get_threshold()[0])]
        assert kept and lost() is not None and not gc.isenabled()
        with paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.collect()
    assert lost() is None


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(RuntimeError), paused():
        raise RuntimeError
    assert gc.isenabled()


def test_what_was_there_is_passed_over_and_what_comes_is_collected() -> None:
    gc.collect()
    before = pair()
    with set_aside():
        after = pair()
        gc.collect()
        assert before() is not None and after() is None
        with set_aside():
            pass
        assert gc.get_freeze_count() > 0
    gc.collect()
    assert before() is None and gc.get_freeze_count() == 0
