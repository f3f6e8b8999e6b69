"""Texts that nobody writes, made from a seed: what pre-tokenizers, normalizers and decoders of UTF-8 get wrong."""

import random

# What one rule of a pre-tokenizer tells from another, and what only looks like it.
HOSTILE = [
    *"aAzZéÉßſİıKÅǅʰªºжЖωΣςאبक字あ한ก",
    *"0129٣४๗½Ⅷ①²㊿𝟘𐄇",
    *" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff",
    *"\u0300\u0301\u0308\u0327\u0338\u0345\u05b0\u064b\u093f\u0e31\u0e33\u1100\u1161\u11a8\uac00\u20e3\ufe0f",
    *"\u200d\u200c",
    *"'’\"_-./\\<>|[](){}!?#$%&*+,:;=@^`~¿«»…—№€™",
    *"👍🏽👨👩👧🏳🌈🇩🇪🇯🇵😀🫠\U000e0067\U000e007f",
    *"\x00\x01\x08\x7f\ufffd\ufffe\uffff\ue000\U0010ffff\u0378",
    *["'s", "'S", "'t", "'re", "'RE", "'ve", "'VE", "'m", "'ll", "'LL", "'d", "'ſ", "'lL", "n't", "’s", "''s", "'s's"],
    *["\r\n", "\n\n", "\n \n", " \n", "\n ", "  ", "   ", "\t\t", " \t", "\r\r\n", "\u3000\n", "\xa0\xa0", "\x85\n"],
    *["//", "/\n", "*/", "://", "...", "—\n", "```", "http://", " a", " A", " 1", " 字", " é", " '", " !"],
    *[
        "<|endoftext|>",
        "<|im_start|>",
        "<|eot_id|>",
        "<bos>",
        "<s>",
        "[INST]",
        "<|",
        "|>",
        "<|endoftext",
        "<0x41>",
        "▁",
    ],
    *[
        "▁▁",
        "<unk>",
        "<tool_call>",
        "<think>",
        "<table>",
        "<start_of_turn>",
        "word",
        "<mask>",
        "<|l|>",
        "<|r|>",
        "<|b|>",
    ],
]
# Ranges with their weights: where code points lie that differ in class, length or normal form.
RANGES = [
    (0x20, 0x7E, 6), (0, 0x7F, 1), (0x80, 0x24F, 4), (0x250, 0x36F, 3), (0x370, 0x52F, 3), (0x530, 0x8FF, 4),
    (0x900, 0xDFF, 4), (0xE00, 0x109F, 3), (0x10A0, 0x1FFF, 5), (0x2000, 0x206F, 3), (0x2070, 0x2BFF, 3),
    (0x2C00, 0x303F, 2), (0x3040, 0x33FF, 3), (0x3400, 0x9FFF, 3), (0xA000, 0xABFF, 2), (0xAC00, 0xD7FF, 2),
    (0xE000, 0xF8FF, 1), (0xF900, 0xFFFF, 4), (0x10000, 0x12FFF, 3), (0x13000, 0x1AFFF, 2), (0x1B000, 0x1FFFF, 4),
    (0x20000, 0x323AF, 2), (0x323B0, 0xE0FFF, 1), (0xE0000, 0xE01FF, 1), (0xF0000, 0x10FFFF, 1),
]  # fmt: skip
MARKS = [*range(0x300, 0x370), *range(0x1DC0, 0x1E00), *range(0x5B0, 0x5BE), *range(0x64B, 0x656), 0x93C, 0x9BC, 0xE38]
SMILES = [*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F700), *range(0x1F900, 0x1FA00), *range(0x2600, 0x27C0)]
PEOPLE, JOINED = [0x1F468, 0x1F469, 0x1F9D1, 0x1F466, 0x1F467], [0x2764, 0x1F308, 0x2695, 0x1F680, 0x1F4BB, 0x2640]


def hostile(random: random.Random, pieces: int) -> str:
    """Pieces out of few kinds at a time, for a run or a repetition is where rules meet."""
    alphabet = random.sample(HOSTILE, random.choice((2, 3, 5, 8, 40)))
    text = []
    while pieces > 0:
        times = 1 if random.random() < 0.8 else random.randrange(2, 9)
        text.append(random.choice(alphabet) * times)
        pieces -= times
    return "".join(text)


def any_unicode(random: random.Random, letters: int) -> str:
    """Scalar values that need not be assigned; runs within one range, as text is."""
    text = []
    weights = [weight for _, _, weight in RANGES]
    while letters > 0:
        low, high, _ = random.choices(RANGES, weights)[0]
        run = min(letters, random.choice((1, 1, 2, 5, 12)))
        text.extend(chr(random.randint(low, high)) for _ in range(run))
        letters -= run
    return "".join(text)


def marked(random: random.Random, letters: int) -> str:
    """Letters under up to sixty marks, in orders that normalization has to mend."""
    text = []
    while letters > 0:
        text.append(random.choice("aeiouAEOUnNcsčñ ő가각ᄀ\u1161\u11a8אבשكتक১กぁか \n"))
        marks = random.choice((0, 1, 1, 2, 3, 5, 60))
        text.extend(chr(random.choice(MARKS)) for _ in range(marks))
        letters -= 1 + marks
    return "".join(text)


def emoji(random: random.Random, count: int) -> str:
    """Emoji alone, in skin tones, as families, flags, key caps and tags, some torn apart, and words between."""
    text = []
    for _ in range(count):
        kind = random.randrange(8)
        if kind <= 1:
            text.append(chr(random.choice(SMILES)))
        elif kind == 2:
            text.append(chr(random.choice(SMILES)) + chr(random.randint(0x1F3FB, 0x1F3FF)))
        elif kind == 3:
            family = [chr(random.choice(PEOPLE)) for _ in range(random.randint(2, 4))]
            text.append("\u200d".join(family + [chr(random.choice(JOINED)) + "\ufe0f"][: random.randrange(2)]))
        elif kind == 4:
            text.append("".join(chr(0x1F1E6 + random.randrange(26)) for _ in range(random.randint(1, 4))))
        elif kind == 5:
            text.append(random.choice("0123456789#*") + "\ufe0f\u20e3")
        elif kind == 6:
            tags = "".join(chr(0xE0061 + random.randrange(26)) for _ in range(5))
            text.append("\U0001f3f4" + tags + "\U000e007f")
        else:
            text.append(random.choice((" ", "\n", "ok", " so ", "!", "\ufe0e", "\ufe0f", "\u200d", "7")))
    return "".join(text)


def run(random: random.Random, length: int) -> str:
    """One letter, or one short word, over and over; sometimes with something else at an end."""
    unit = (
        random.choice(HOSTILE) if random.random() < 0.7 else chr(random.choice(MARKS + SMILES + list(range(32, 127))))
    )
    ends = ("", "", "a", " ", "\n", ".", "1")
    return random.choice(ends) + unit * max(1, length // len(unit.encode())) + random.choice(ends)


def damaged(random: random.Random, text: bytes) -> bytes:
    """UTF-8 with faults of every kind, some of them at the very end."""
    faults = [
        b"\x80", b"\xbf\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5", b"\xff", b"\xfe\xff", b"\xe2\x82",
        b"\xf0\x9f\x91", b"\xf0\x9f", b"\xc3", b"\xe0\xa0",
    ]  # fmt: skip
    content = bytearray(text)
    for _ in range(max(1, len(content) // random.choice((20, 200, 2000)))):
        at = random.randrange(len(content) + 1)
        kind = random.randrange(4)
        if kind == 0:
            content[at:at] = random.choice(faults)
        elif kind == 1:
            del content[at : at + random.randint(1, 2)]
        elif kind == 2 and at < len(content):
            content[at] = random.randrange(256)
        else:
            content[at:at] = random.choice(faults) * random.randint(1, 3)
    if random.random() < 0.3:
        content += random.choice(faults)
    return bytes(content)
