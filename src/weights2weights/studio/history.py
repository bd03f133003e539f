"""What a visitor did: a tree of states with undo, redo and branches, as one immutable value."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .state import State

MOST = 60
"""States that a history keeps; the oldest is forgotten first."""


@dataclass(frozen=True)
class History:
    """A tree of numbered states; a change of any of them begins a branch.

    Attributes:
        states: number → state, oldest first.
        parents: number → number of the state that it was made from, or None.
        at: number of the state that is shown.
        visited: number → number of its child that redo returns to.
    """

    states: Mapping[int, State]
    parents: Mapping[int, int | None]
    at: int = 0
    visited: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, state: State) -> "History":
        """Return the history of one state."""
        return cls({0: state}, {0: None})

    @property
    def state(self) -> State:
        """The state that is shown."""
        return self.states[self.at]

    def add(self, state: State) -> "History":
        """Return the history with a new state, made from the one that is shown."""
        number = max(self.states) + 1
        states, parents = {**self.states, number: state}, {**self.parents, number: self.at}
        visited = {**self.visited, self.at: number}
        if len(states) > MOST:
            oldest = min(states.keys() - {number, self.at})
            above = parents.pop(oldest)
            del states[oldest]
            visited.pop(oldest, None)
            parents = {n: above if p == oldest else p for n, p in parents.items()}
            visited = {n: child for n, child in visited.items() if child != oldest}
        return History(states, parents, number, visited)

    def undo(self) -> "History":
        """Return to the state that this one was made from."""
        above = self.parents[self.at]
        return self if above is None else replace(self, at=above)

    def redo(self) -> "History":
        """Return to the state that was last left by `undo`."""
        return replace(self, at=self.visited.get(self.at, self.at))

    def go(self, number: int) -> "History":
        """Show any state; one that was forgotten changes nothing."""
        if number not in self.states:
            return self
        above = self.parents[number]
        visited = self.visited if above is None else {**self.visited, above: number}
        return replace(self, at=number, visited=visited)

    def rename(self, name: str) -> "History":
        """Name the state that is shown."""
        return replace(self, states={**self.states, self.at: replace(self.state, name=name)})
