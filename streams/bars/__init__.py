"""Bars: ticks of one symbol become open, high, low, close. One file per kind of window."""
