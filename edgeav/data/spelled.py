"""What people say to a form, for the drawn corpus: spelled names, digits, numbers, dates, commands.

These are the kinds of sentences that CMU's AN4 has (Acero 1990), made at random; none is copied.
"""

from __future__ import annotations

import string

import numpy as np

LETTERS = list(string.ascii_lowercase)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh"]
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
MONTHS = "january february march april may june july august september october november december"
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth"
)
COMMANDS = "yes no go help start stop repeat erase rubout enter"


def spelled(r: np.random.Generator) -> str:
    """One sentence."""
    teens, tens, commands = TEENS.split(), TENS.split(), COMMANDS.split()
    match int(r.integers(6)):
        case 0:
            words = r.choice(LETTERS, int(r.integers(2, 9)))
        case 1:
            words = r.choice(DIGITS, int(r.integers(2, 8)))
        case 2:
            words = [r.choice(commands), *r.choice([*LETTERS, *DIGITS], int(r.integers(2, 7)))]
        case 3:
            words = [w for _ in range(int(r.integers(1, 4))) for w in (r.choice(tens), r.choice(DIGITS[1:10]))]
        case 4:
            words = [r.choice(MONTHS.split()), r.choice(ORDINALS.split()), "nineteen", r.choice(tens)]
        case _:
            words = [r.choice([*commands, *teens, "hundred", "thousand"]), *r.choice([*DIGITS, *teens], 2)]
    return " ".join(str(word) for word in words)
