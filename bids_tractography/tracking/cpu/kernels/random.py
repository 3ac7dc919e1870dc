"""Random numbers of a streamline: Philox4x32-10 (Salmon 2011), by counter.

A generator with a state would make the numbers of a streamline depend on what was tracked before
it. Philox has none: it encrypts a counter, and the counter says what the numbers are for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import inlined_kernel
from bids_tractography.tracking.cpu.kernels.memory import words_at

# What random numbers are for, in the highest bits of the last word of the counter. The half, the
# particle and the attempt have the rest of that word, from these bits on and from 0.
DIRECTION, STOPPING, PARTICLE, CURVE = range(4)
_PURPOSE, _HALF, _PARTICLE = 28, 27, 16

# No draw makes so many attempts: the words of the one that cannot fail.
LAST_ATTEMPT = 0xFFFF

# Draws of a direction for which random words are made together, and attempts of each: 32 blocks of
# words, which fill vector registers of any width.
DRAWS, ATTEMPTS = 8, 4
_W = DRAWS * ATTEMPTS  # from one of the four words to the next


class Stream(NamedTuple):
    """The random numbers of one half of one streamline: key, and what their counters share."""

    key0: np.uint64
    key1: np.uint64
    seed: np.uint64
    direction: np.uint64
    half: np.uint64


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@inlined_kernel
def philox(c0, c1, c2, c3, k0, k1):
    """Turn four words of counter and two of key into four random words: Philox4x32-10.

    Parameters
    ----------
    c0, c1, c2, c3, k0, k1 : uint64
        Words of 32 bits. In 64 bits, a product of two of them has its high word where it can be
        shifted down, and no sum overflows.
    """
    for _ in range(10):
        one, other = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (other >> _32) ^ c1 ^ k0,
            other & _MASK,
            (one >> _32) ^ c3 ^ k1,
            one & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@inlined_kernel
def make_stream(rng_seed, seed, direction, half):
    """Return the stream of one half of a streamline.

    Parameters
    ----------
    rng_seed : int
        Of the configuration, 64 bits.
    seed : int
        Index of the seed in the whole list, 56 bits.
    direction : int
        Index of the initial direction, 8 bits.
    half : int
        0 or 1.
    """
    key, index = np.uint64(rng_seed), np.uint64(seed)
    return Stream(
        key & _MASK,
        key >> _32,
        index & _MASK,
        ((index >> _32) << np.uint64(8)) | np.uint64(direction),
        np.uint64(half) << np.uint64(_HALF),
    )


@inlined_kernel
def make_counter(stream, purpose, turn, particle, attempt):
    """Return four words that no other stream, purpose, turn, particle or attempt shares.

    Parameters
    ----------
    stream : Stream
    purpose : int
    turn, particle, attempt : int
        32, 11 and 16 bits.
    """
    last = (
        (np.uint64(purpose) << np.uint64(_PURPOSE))
        | stream.half
        | (np.uint64(particle) << np.uint64(_PARTICLE))
        | np.uint64(attempt)
    )
    return stream.seed, stream.direction, np.uint64(turn), last


@inlined_kernel
def random_words(stream, purpose, turn, particle, attempt):
    """Return four random words of 32 bits.

    Parameters
    ----------
    stream : Stream
    purpose, turn, particle, attempt : int
        See `make_counter`.
    """
    c0, c1, c2, c3 = make_counter(stream, purpose, turn, particle, attempt)
    return philox(c0, c1, c2, c3, stream.key0, stream.key1)


@inlined_kernel
def fill_words(stream, turn, more_turns, particle, more_particles, words):
    """Make what `random_words` gives for the first attempts of eight draws of directions.

    Made together they take a fifth of the time: LLVM puts them in the lanes of vectors.

    Parameters
    ----------
    stream : Stream
    turn, particle : int
        Of the first draw.
    more_turns, more_particles : int
        Added from one draw to the next.
    words : address of uint32, shape (4, 8, 4)
        Written: the four words of each draw and attempt.
    """
    words = words_at(words)
    c0, c1, c2, c3 = make_counter(stream, DIRECTION, turn, particle, 0)
    turns, particles = np.uint64(more_turns), np.uint64(more_particles) << np.uint64(_PARTICLE)
    for n in range(_W):
        draw, attempt = np.uint64(n // ATTEMPTS), np.uint64(n % ATTEMPTS)
        w0, w1, w2, w3 = philox(
            c0, c1, c2 + turns * draw, c3 + particles * draw + attempt, stream.key0, stream.key1
        )
        words[n], words[n + _W], words[n + 2 * _W], words[n + 3 * _W] = w0, w1, w2, w3


@inlined_kernel
def words_of(words, draw, attempt):
    """Return the four words of a draw and attempt that `fill_words` has made.

    Parameters
    ----------
    words : address of uint32, shape (4, 8, 4)
    draw, attempt : int
    """
    words, n = words_at(words), np.uint64(ATTEMPTS * draw + attempt)
    w0, w1 = np.uint64(words[n]), np.uint64(words[n + np.uint64(_W)])
    w2, w3 = np.uint64(words[n + np.uint64(2 * _W)]), np.uint64(words[n + np.uint64(3 * _W)])
    return w0, w1, w2, w3


@inlined_kernel
def uniform(high, low):
    """Turn two words into a number in [0, 1) of 53 bits, as many as a float64 has."""
    return np.float64(((high << _32) | low) >> np.uint64(11)) * 2.0**-53
