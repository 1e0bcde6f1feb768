"""Bars: ticks of one symbol become open, high, low, close. One file per kind of bar.

kinds       the kinds' names          fold     the kernel: events in, bars out
time        and sessions              state    the arrays that it works on
threshold   tick, volume, dollar      opened   one open bar
range, renko, imbalance, runs         plain    all of it once more in plain Python: the tested reference
"""
