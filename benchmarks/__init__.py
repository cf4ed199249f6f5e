"""Benchmarks: the whole system under load, beside a peer, as numbers that can be had again."""
