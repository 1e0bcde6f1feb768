"""What a portfolio holds and what it is worth: cash, positions at average cost, profit and loss."""

from streams.positions.book import apply_fill, average_cost, equity, holding_of, mark, unrealised

__all__ = ["apply_fill", "average_cost", "equity", "holding_of", "mark", "unrealised"]
