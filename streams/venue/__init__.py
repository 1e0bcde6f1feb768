"""The paper venue: what would have become of an order, by documented rules (`paper`), and what it costs
(`costs`).
"""

from streams.venue.paper import PaperBar, PaperFill, expires, match

__all__ = ["PaperBar", "PaperFill", "expires", "match"]
