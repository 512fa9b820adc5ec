"""The memory that requests may take: what they bring, and the objects that they name."""

import threading

from atlas_ray.serving.problems import Problem, busy


class Room:
    """The bytes of all requests that a gateway holds at a time."""

    def __init__(self, *, most: int, most_a_request: int) -> None:
        self.most_a_request = most_a_request
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Set bytes aside, and tell whether there are so many."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        """Count bytes as free again."""
        with self._lock:
            self._left += count


class Share:
    """What one request takes of the room, from whichever thread."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0
        self._ended = False
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Set bytes aside before they are held.

        Raises:
            Problem: 413 where the request has too many, 429 where all requests together have.
        """
        with self._lock:
            most = self._room.most_a_request
            if self._taken + count > most:
                raise Problem(413, "too_large", f"more came; a request has at most {most} bytes, its objects included")
            # A read that nobody waits for any more would hold what nobody gives back.
            if self._ended or not self._room.take(count):
                raise busy("this endpoint's memory")
            self._taken += count

    def give_back(self, count: int) -> None:
        """Count bytes as free again that came to nothing."""
        with self._lock:
            if not self._ended:
                self._taken -= count
                self._room.give_back(count)

    def end(self) -> None:
        """Give all of it back."""
        with self._lock:
            self._ended = True
            self._room.give_back(self._taken)
            self._taken = 0
