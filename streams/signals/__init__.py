"""What to hold, and why: the strategy interface (`strategy`), how one is found (`loading`), and those that
ship.
"""
