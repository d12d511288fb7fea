"""Who gets a place when there are too few."""

from __future__ import annotations

import threading

from servicekit.database.places import FairPlaces
from tests.support.waiting import eventually


def test_places_go_to_who_has_waited_longest_and_nobody_overtakes() -> None:
    places = FairPlaces(1)
    assert places.take(0)
    served: list[int] = []

    def come(number: int) -> None:
        assert places.take(30)
        served.append(number)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(20)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        eventually(lambda number=number: places.waiting == number)
    for number in range(len(threads)):
        places.give_back()
        # It was given away before this thread could have it back.
        assert not places.take(0)
        eventually(lambda number=number: len(served) == number + 1)
    for thread in threads:
        thread.join()

    assert served == list(range(20))
    places.give_back()
    assert places.take(0)


def test_whoever_has_waited_in_vain_takes_no_place() -> None:
    places = FairPlaces(0)
    assert not places.take(0.01)
    places.give_back()
    assert places.take(0)
    assert not places.take(0)
