"""Codes of fewer bits than a word has, out of the words that they share.

Values of N bits lie in blocks of n values in m words. A block is described by pieces:
bits of a value that lie together in a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """`bits` bits of a value, from bit `low` on, lie in a word from bit `at` on."""

    value: int
    low: int
    word: int
    at: int
    bits: int


@dataclass(frozen=True)
class Block:
    """How the words of one block hold its values."""

    bits: int  # of a value
    values: int
    words: int
    pieces: tuple[Piece, ...]


def _block(bits: int, values: int, words: int, *rows: tuple[int, int, int, int, int]) -> Block:
    return Block(bits, values, words, tuple(Piece(*row) for row in rows))


def _blocks() -> dict[int, Block]:
    """The 14 widths that share words."""

    def own(bits: int, count: int) -> list[tuple[int, int, int, int, int]]:
        """The first values lie in words of their own, from bit 0 on."""
        return [(i, 0, i, 0, bits) for i in range(count)]

    all_ = [_block(n, 8 // n, 1, *((i, 0, 0, n * i, n) for i in range(8 // n))) for n in (1, 2, 4)]
    all_.append(
        _block(
            3, 8, 3, *own(3, 3), *((3 + j, 0, j, 3, 3) for j in range(3)),
            (6, 0, 0, 6, 2), (7, 0, 1, 6, 2), (6, 2, 2, 6, 1), (7, 2, 2, 7, 1),
        )
    )  # fmt: skip
    all_.append(
        _block(
            5, 8, 5, *own(5, 5), *((5 + j, 0, j, 5, 3) for j in range(3)),
            (5, 3, 3, 5, 2), (6, 3, 4, 5, 2), (7, 4, 3, 7, 1), (7, 3, 4, 7, 1),
        )
    )  # fmt: skip
    all_.append(_block(6, 4, 3, *own(6, 3), *((3, 4 - 2 * j, j, 6, 2) for j in range(3))))
    all_.append(_block(7, 8, 7, *own(7, 7), *((7, 6 - j, j, 7, 1) for j in range(7))))
    all_.append(
        _block(
            9, 16, 9, *own(9, 8),
            *((8 + j, 0, j, 9, 7) for j in range(8)), *((8 + j, 7, 8, 2 * j, 2) for j in range(8)),
        )
    )  # fmt: skip
    all_.append(
        _block(
            10, 8, 5, *own(10, 5), *((5 + j, 0, j, 10, 6) for j in range(3)),
            (5, 6, 3, 10, 4), (6, 6, 4, 10, 4), (7, 8, 3, 14, 2), (7, 6, 4, 14, 2),
        )
    )  # fmt: skip
    all_.append(
        _block(
            11, 16, 11, *own(11, 8), *((8 + j, 0, j, 11, 5) for j in range(8)),
            *((8 + j, 5, 8 + j, 0, 6) for j in range(3)), *((11 + j, 5, 8 + j, 6, 6) for j in range(3)),
            (14, 5, 8, 12, 4), (15, 5, 9, 12, 4), (14, 9, 10, 12, 2), (15, 9, 10, 14, 2),
        )
    )  # fmt: skip
    all_.append(_block(12, 4, 3, *own(12, 3), *((3, 8 - 4 * j, j, 12, 4) for j in range(3))))
    all_.append(
        _block(
            13, 16, 13, *own(13, 13), *((13 + c, 3 * t, 3 * t + c, 13, 3) for t in range(4) for c in range(3)),
            *((13 + c, 12, 12, 13 + c, 1) for c in range(3)),
        )
    )  # fmt: skip
    all_.append(_block(14, 8, 7, *own(14, 7), *((7, 12 - 2 * j, j, 14, 2) for j in range(7))))
    all_.append(_block(15, 16, 15, *own(15, 15), *((15, 14 - j, j, 15, 1) for j in range(15))))
    return {b.bits: b for b in all_}


#: By the bits of a value.
BLOCKS: dict[int, Block] = _blocks()


def words_of(bits: int, count: int) -> tuple[int, ...]:
    """Returns the shape of the words that hold so many values, whole blocks."""
    block = BLOCKS[bits]
    blocks = count // block.values
    return (blocks,) if block.words == 1 else (blocks, block.words)


@dataclass(frozen=True)
class _Lanes:
    """A block as one integer whose bytes become the values: pieces that are moved by
    the same number of bits are moved together. Moves are to the left, or, below 0, to
    the right."""

    dtype: torch.dtype
    moves: tuple[tuple[int, int], ...]  # by how many bits, and which bits of the result


def _lanes(block: Block) -> _Lanes:
    moves: dict[int, int] = {}
    for p in block.pieces:
        at = 8 * p.value + p.low
        by = at - (8 * p.word + p.at)
        moves[by] = moves.get(by, 0) | ((1 << p.bits) - 1) << at
    dtype = {2: torch.int16, 4: torch.int32, 8: torch.int64}[block.values]
    return _Lanes(dtype, tuple(sorted(moves.items())))


_LANES = {bits: _lanes(block) for bits, block in BLOCKS.items() if bits < 8}


def unpack(words: Tensor, bits: int) -> Tensor:
    """Returns the codes in words of N = `bits` bits, fewer than 16 and not 8.

    Args:
        words: [T/n] or [T/n, m], of any integer dtype.

    Returns:
        The codes in order, [T]: uint8 below 8 bits, int32 above.
    """
    if torch.compiler.is_compiling():
        return _unpack_plainly(words, bits)
    if bits < 8:
        return _unpack_together(words, bits)
    return _unpack_plainly(words, bits)


def _unpack_plainly(words: Tensor, bits: int) -> Tensor:
    """Takes value by value of all blocks. A compiler makes one loop of it."""
    block = BLOCKS[bits]
    words = words.reshape(-1, block.words)
    if words.dtype is torch.uint16:
        words = words.view(torch.int16)
    x = words.to(torch.int32)
    values = []
    for value in range(block.values):
        code: Tensor | None = None
        for p in block.pieces:
            if p.value == value:
                # Words of 16 bits come with their sign above: the mask takes it off.
                part = ((x[:, p.word] >> p.at) & ((1 << p.bits) - 1)) << p.low
                code = part if code is None else code | part
        assert code is not None
        values.append(code)
    codes = torch.stack(values, dim=-1).reshape(-1)
    return codes.to(torch.uint8) if bits < 8 else codes


def _unpack_together(words: Tensor, bits: int) -> Tensor:
    """Takes all values of a block in one integer: an order of magnitude faster than
    writing them value by value, which goes through memory with a stride."""
    block, lanes = BLOCKS[bits], _LANES[bits]
    if block.words == 1:
        x = words.reshape(-1).to(lanes.dtype)
        if words.dtype is torch.uint8 or words.dtype is torch.int64:
            return _spread(x, block)
        return _spread(x & 255, block)
    words = words.reshape(-1, block.words)
    width = {torch.int32: 4, torch.int64: 8}[lanes.dtype]
    padded = words.new_zeros((words.shape[0], width))
    padded[:, : block.words] = words
    x = padded.view(lanes.dtype).reshape(-1)
    total: Tensor | None = None
    for by, mask in lanes.moves:
        part = x << by if by > 0 else x >> -by if by < 0 else x.clone()
        part &= mask
        total = part if total is None else total.bitwise_or_(part)
    assert total is not None
    return total.view(torch.uint8)


def _spread(x: Tensor, block: Block) -> Tensor:
    """Moves the values of a byte into bytes of their own by halves."""
    half = block.values // 2
    while half:
        # The upper half of every run of values moves up by its bits' distance.
        move = half * (8 - block.bits)
        mask = 0
        for run in range(0, block.values, half):
            mask |= ((1 << block.bits * half) - 1) << 8 * run
        x = (x | (x << move)) & mask
        half //= 2
    return x.view(torch.uint8)
