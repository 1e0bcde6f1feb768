"""What trading costs on the paper venue: spread, slippage and fees, from the portfolio's `VenueSpec`; the spread from
the quotes where there are any.
"""

from __future__ import annotations

from decimal import Decimal

from schemas.records import QuoteBar, Side, VenueSpec
from streams.positions.money import PLACES, from_float, rounded

_BASIS_POINTS = Decimal(10_000)


def half_spread_bps(spec: VenueSpec, quote: QuoteBar | None) -> Decimal:
    """Half the spread that a market order crosses, basis points: of the bar's quotes (the mean over their time
    in force) where there are any, else that of the settings.
    """
    return spec.half_spread_bps if quote is None else from_float(quote.spread_bps) / 2


def market_price(
    spec: VenueSpec, side: Side, opening: Decimal, quantity: Decimal, volume: Decimal, half_spread: Decimal
) -> Decimal:
    """The price of a market order's fill of ``quantity`` in a bar that opens at ``opening``, quote currency
    per unit.

    The order crosses ``half_spread`` (basis points) and moves the price linearly in its share of the bar's
    volume:

        opening * (1 +- (half_spread + slippage_bps * quantity / volume) / 10000)

    However wide the quotes are, it sells for no less than the smallest price there is.
    """
    bps = half_spread + spec.slippage_bps * quantity / volume
    share = bps / _BASIS_POINTS
    return max(rounded(opening * (1 + share if side is Side.BUY else 1 - share)), PLACES)


def fee_due(spec: VenueSpec, filled: Decimal, value: Decimal) -> Decimal:
    """The fee of an order of which ``filled`` units worth ``value`` have been filled, quote currency.

        max(minimum_fee, fee_bps / 10000 * value + fee_per_unit * filled)

    It is that of all fills of the order together. A fill is charged what this has grown by, so the minimum is
    charged once per order, with its first fill, and later fills use it up before they cost more.
    """
    return max(spec.minimum_fee, rounded(spec.fee_bps / _BASIS_POINTS * value + spec.fee_per_unit * filled))


def slippage(side: Side, reference: Decimal, price: Decimal, quantity: Decimal) -> Decimal:
    """What a fill cost against the close it was decided on, quote currency; negative where the price was
    better.
    """
    paid_more = price - reference if side is Side.BUY else reference - price
    return rounded(paid_more * quantity)
