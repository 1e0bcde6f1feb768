"""An order's life as a table. What is not in the table cannot happen; a state without a row is final.

An order is born APPROVED, or DENIED by the pre-trade check.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from schemas.records import OrderState
from schemas.states import OpenOrder


class Event(StrEnum):
    """What can happen to an order."""

    SUBMIT = "SUBMIT"
    ACCEPT = "ACCEPT"
    FILL_PART = "FILL_PART"
    FILL_REST = "FILL_REST"
    REJECT = "REJECT"
    CANCEL = "CANCEL"
    EXPIRE = "EXPIRE"


_S = OrderState
_E = Event

TRANSITIONS = MappingProxyType(
    {
        (_S.APPROVED, _E.SUBMIT): _S.SUBMITTED,
        (_S.APPROVED, _E.CANCEL): _S.CANCELLED,
        (_S.SUBMITTED, _E.ACCEPT): _S.ACCEPTED,
        (_S.SUBMITTED, _E.FILL_PART): _S.PARTIALLY_FILLED,  # a broker may fill before it says that it accepts
        (_S.SUBMITTED, _E.FILL_REST): _S.FILLED,
        (_S.SUBMITTED, _E.REJECT): _S.REJECTED,
        (_S.SUBMITTED, _E.CANCEL): _S.CANCELLED,
        (_S.SUBMITTED, _E.EXPIRE): _S.EXPIRED,
        (_S.ACCEPTED, _E.FILL_PART): _S.PARTIALLY_FILLED,
        (_S.ACCEPTED, _E.FILL_REST): _S.FILLED,
        (_S.ACCEPTED, _E.REJECT): _S.REJECTED,
        (_S.ACCEPTED, _E.CANCEL): _S.CANCELLED,
        (_S.ACCEPTED, _E.EXPIRE): _S.EXPIRED,
        (_S.PARTIALLY_FILLED, _E.FILL_PART): _S.PARTIALLY_FILLED,
        (_S.PARTIALLY_FILLED, _E.FILL_REST): _S.FILLED,
        (_S.PARTIALLY_FILLED, _E.CANCEL): _S.CANCELLED,
        (_S.PARTIALLY_FILLED, _E.EXPIRE): _S.EXPIRED,
    }
)
TERMINAL = frozenset({_S.DENIED, _S.FILLED, _S.REJECTED, _S.CANCELLED, _S.EXPIRED})


def advance(order: OpenOrder, event: Event) -> None:
    """Move ``order`` to the state that ``event`` brings it to.

    Raises KeyError where the table has no such transition: a defect of the caller, never bad input.
    """
    order.state = TRANSITIONS[order.state, event]
