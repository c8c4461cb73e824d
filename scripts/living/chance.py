"""ChaCha8 with 64-bit streams, seeded as rand_core 0.10 expands a 64-bit seed."""

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
MULTIPLIER, INCREMENT = 0x5851F42D4C957F2D, 0xA17654E46FBE17F3
CONSTANTS = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
COLUMNS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
DIAGONALS = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def expanded(seed):
    """The eight words of the key: outputs of a PCG32 that starts from the seed."""
    words = []
    for _ in range(8):
        seed = (seed * MULTIPLIER + INCREMENT) & MASK64
        word, turn = (((seed >> 18) ^ seed) >> 27) & MASK32, seed >> 59
        words.append(((word >> turn) | (word << (32 - turn))) & MASK32)
    return words


def turned(x, by):
    return ((x << by) | (x >> (32 - by))) & MASK32


def block(key, counter, stream):
    """Sixteen words."""
    start = CONSTANTS + key + [counter & MASK32, counter >> 32, stream & MASK32, stream >> 32]
    s = list(start)
    for _ in range(4):
        for a, b, c, d in COLUMNS + DIAGONALS:
            for first, second in ((16, 12), (8, 7)):
                s[a] = (s[a] + s[b]) & MASK32
                s[d] = turned(s[d] ^ s[a], first)
                s[c] = (s[c] + s[d]) & MASK32
                s[b] = turned(s[b] ^ s[c], second)
    return [(x + y) & MASK32 for x, y in zip(s, start)]


class Generator:
    def __init__(self, seed, stream):
        self.key, self.stream, self.counter, self.words = expanded(seed), stream, 0, []

    def whole(self):
        """The next 64 bits; the first word is the low half."""
        if not self.words:
            self.words = block(self.key, self.counter, self.stream)
            self.counter += 1
        low, high = self.words[:2]
        self.words = self.words[2:]
        return low | high << 32

    def unit(self):
        """A number in [0, 1), a multiple of 2^-53."""
        return (self.whole() >> 11) * 2.0**-53


def check():
    """What src/dataset/dice.rs says of seed 1, stream 0."""
    generator = Generator(1, 0)
    picks = [generator.whole() * 100 >> 64 for _ in range(8)]
    assert picks == [40, 8, 59, 21, 28, 71, 46, 15], picks
