"""Importing many container images into one store, with the workers of any executor."""
