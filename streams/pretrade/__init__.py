"""The last word before an order leaves: hard limits (`limits`), and the order's life after it
(`lifecycle`).
"""
