"""The kernels of entropy coding in numpy: they run everywhere, and say what those in C have to give."""
