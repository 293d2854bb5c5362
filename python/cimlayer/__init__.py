"""Windows container layers as CimFS images, on any platform."""
