"""The compiled half of cimlayer: ``cimfs.h``, its portable implementation, and the hot loops."""
