"""The kernels of entropy coding in C, for Linux on x86-64 and aarch64. `edgekit.codecs.entropy.reference` has numpy's.

``NAME.c`` holds kernels, `coder.h` what all of them share, ``NAME.py`` calls them with numpy arrays. All C files make
one library, which is kept here for each machine: ``make native`` builds it again, byte by byte the same.

A new kernel is a function in ``NAME.c``, its call in ``NAME.py``, and a function in ``reference/NAME.py`` that does the
same. Where it is used, `edgekit.codecs.entropy.kernels.pick` takes one of the two; then ``make native``.
"""
