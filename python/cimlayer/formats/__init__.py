"""Formats of Windows, each by itself: descriptors, reparse points, hives as text, boot stores, disks."""
