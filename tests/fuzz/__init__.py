"""Fuzzing: the targets, their seeds and findings, and one way to run them (docs/fuzzing.md)."""
