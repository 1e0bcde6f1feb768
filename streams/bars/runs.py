"""Run bars: a bar is closed when one side has done more than was expected of either, other ticks between or not.

López de Prado, Advances in Financial Machine Learning (Wiley 2018), section 2.3.2.3 and 2.3.2.4. With b_t the side of
tick t (1, −1; 0 before the first change of price), and w_t its weight (1; its size; its price times its size):

    θ = max(Σ w_t [b_t = 1], Σ w_t [b_t = −1])                   over the T ticks of the bar so far
    closed when  θ ≥ E₀[T] · max(P · E₀[w|1], (1 − P) · E₀[w|−1])  and  θ > 0,   or  T ≥ 10·T₀

The expectations are exponential averages over the closed bars; with α = 2 / (span + 1), after each bar of n₁ buys and
n₋₁ sells

    E₀[T]    ← E₀[T] + α (T − E₀[T]),  then held within T₀/10 … 10·T₀
    P        ← P + α (n₁ / (n₁ + n₋₁) − P)                       where n₁ + n₋₁ > 0
    E₀[w|±1] ← E₀[w|±1] + α (Σ w_t [b_t = ±1] / n±₁ − E₀[w|±1])   where n±₁ > 0

The first bar is closed by its T₀-th tick and sets E₀[T] = T₀ and P to its share of buys (1/2 where it had neither buys
nor sells). E₀[w|±1] is 0 until a bar has a tick of that side with a weight, whose mean it then is. For the bounds see
`streams.bars.imbalance`.
"""

from __future__ import annotations

from typing import Any

from schemas.compiled import kernel
from streams.bars.imbalance import complete, expect_ticks

Row = Any


@kernel
def reached(kind: Row, builder: Row, ticks: int) -> bool:
    """Whether the bar is complete."""
    theta = max(builder.bought, builder.sold)
    share = builder.buy_share
    most = max(share * builder.expected_buy, (1.0 - share) * builder.expected_sell)
    return complete(kind, builder, ticks, theta, builder.expected_ticks * most)


@kernel
def learn(kind: Row, builder: Row, ticks: int) -> None:
    """Take a closed bar into the expectations, and begin the sums anew."""
    expect_ticks(kind, builder, ticks)
    sided = builder.buys + builder.sells
    if sided > 0:
        share = builder.buys / sided
        if builder.bars == 0:
            builder.buy_share = share
        else:
            builder.buy_share += kind.alpha * (share - builder.buy_share)
    if builder.buys > 0:
        builder.expected_buy = averaged(builder.expected_buy, builder.bought / builder.buys, kind.alpha)
    if builder.sells > 0:
        builder.expected_sell = averaged(builder.expected_sell, builder.sold / builder.sells, kind.alpha)
    builder.buys = builder.sells = 0
    builder.bought = builder.sold = 0.0


@kernel
def averaged(average: float, newest: float, alpha: float) -> float:
    """The average moved on; 0 stands for none yet."""
    if average == 0.0:
        return newest
    return average + alpha * (newest - average)
