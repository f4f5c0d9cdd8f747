"""Fuzzers: one invariant each, said in its docstring's first sentence; brief in CI, long in `make deep`.

An input that once broke something stays, as an `@example` beside the fuzzer that found it.
"""
