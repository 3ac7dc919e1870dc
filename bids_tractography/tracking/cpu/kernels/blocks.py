"""Sizes that rows of amplitudes and the kernels that read them have to agree on."""

BLOCK = 16
"""Axes in a block: 16 amplitudes as int32 or float32 fill one AVX-512 register or two of AVX2, and
a bit for each of them fits a 16-bit word."""

MAX_BLOCKS = 32
"""Blocks in a row: a bit for each fits an int32. DIPY's sphere of 362 axes takes 23."""

LINE = 32
"""16-bit numbers in a cache line. Rows begin on a line, so that a block never straddles two."""

UNIT = 2**22
"""Integer to which the interpolated maxima of the eight corners are scaled.

No amplitude is larger, so that the sum over DIPY's 362 axes fits an int32; and every integer up to
2**24 is a float32.
"""

MAXIMUM_STEP = 257
"""Step in which the maximum of a block is stored as a byte: 255 * 257 is 65535."""
