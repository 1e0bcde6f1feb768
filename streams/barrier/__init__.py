"""The barrier on event time: where the bars of a universe, from many partitions, become one snapshot."""

from streams.barrier.barrier import Closed, Event, Terms, step, terms

__all__ = ["Closed", "Event", "Terms", "step", "terms"]
