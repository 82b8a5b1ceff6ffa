"""Parts of other libraries are back when a context ends, however it ends."""

from __future__ import annotations

import threading

import pytest

from language_neurons_alignment.engines.replaced import replaced


class Library:
    @classmethod
    def name(cls) -> str:
        return cls.__name__


def _name_and_fail() -> None:
    Library.name()
    raise ZeroDivisionError


class Inherits(Library):
    """Has the part by inheritance alone."""


def test_a_part_is_back_after_an_error_and_a_classmethod_is_one_again() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError), replaced(Library, "name", lambda: seen.append("another")):
        _name_and_fail()
    assert seen == ["another"]
    assert (Library.name(), Inherits.name()) == ("Library", "Inherits")


def test_a_part_that_is_not_there_is_never_made() -> None:
    with pytest.raises(KeyError, match="renamed"), replaced(Library, "renamed", print):
        pass
    assert not hasattr(Library, "renamed")


def test_threads_take_turns() -> None:
    """Else the second would keep the first's part for the library's own, and put it back at its end."""
    entered, seen = threading.Event(), []

    def second() -> None:
        entered.set()
        with replaced(Library, "name", lambda: "second"):
            seen.append(Library.name())

    thread = threading.Thread(target=second)
    with replaced(Library, "name", lambda: "first"):
        thread.start()
        assert entered.wait(10)
        thread.join(0.05)
        seen.append(Library.name())
    thread.join(10)
    assert seen == ["first", "second"]
    assert Library.name() == "Library"
