"""Merge lists out of what holds none: the ranks of tiktoken, and the scores of SentencePiece."""


def from_ranks(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that each token of two bytes and more was merged from, by rank.

    A token that its vocabulary cannot reach by merging (it happens with ranks that were added by hand) has no pair:
    with `ignore_merges` a piece equal to it is still found.
    """
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
        if len(token) > 1:
            parts = merged_below(ranks, token, rank)
            if len(parts) == 2:
                pairs.append((parts[0], parts[1]))
    return pairs


def merged_below(ranks: dict[bytes, int], token: bytes, rank_max: int) -> list[bytes]:
    """`token` merged by those ranks only that are below `rank_max`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        best, at = rank_max, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], rank_max)
            if rank < best:
                best, at = rank, i
        if at < 0:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def from_scores(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every way to cut a piece into two pieces, the best score first: as transformers makes it of a `.model` file."""
    ids = {piece: id for id, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(left, right, score) for left, right in cuts if left in ids and right in ids]
        merges.extend(sorted(known, key=lambda cut: (ids[cut[0]], ids[cut[1]])))
    merges.sort(key=lambda merge: merge[2], reverse=True)
    return [(left, right) for left, right, _ in merges]


def byte_level_alphabet() -> dict[int, str]:
    """GPT-2's letter for each byte: itself where it prints, else one past U+0100."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printing}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(0x100 + len(letters) - len(printing))
    return letters
