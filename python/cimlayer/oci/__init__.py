"""Container images: where they come from, their documents, and their layers in and out."""
