"""Best bids and asks to bars: spread, mid and microprice of each window (`bars`)."""
