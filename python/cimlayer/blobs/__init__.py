"""Bytes that arrive: streams, decompression, reading ahead, digests."""
