"""Regimes: what kind of market a symbol is in, by rule, on each closed bar."""
