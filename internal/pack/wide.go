package pack

import (
	"encoding/binary"
	"math/bits"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// A wide block packs codes of 9 to 15 bits. Four codes, or four words, are handled as
// one number of 64 bits. A term moves all bits that go the same way between two such
// numbers.
type wide struct {
	values, words int // in a block
	pack, unpack  []term
}

// term moves bits from one 64-bit number of a block to one of the result.
type term struct {
	from, to, left int // indexes of the numbers, and bits to rotate left by
	mask           uint64
}

// wides are the blocks of 9 to 15 bits, by width.
var wides = func() (all [16]*wide) {
	for width := 9; width < 16; width++ {
		b := &blocks[width]
		w := &wide{values: b.values, words: b.words}
		for _, p := range b.pieces {
			from, to := 16*int(p.value)+int(p.from), 16*int(p.word)+int(p.at)
			mask := uint64(1)<<p.bits - 1
			w.unpack = joined(w.unpack, to, from, mask)
			if p.from == 0 { // the lowest piece keeps overflow, see Pack
				mask = 1<<(16-p.at) - 1
			}
			w.pack = joined(w.pack, from, to, mask)
		}
		all[width] = w
	}
	return all
}()

// joined adds the bits of mask, moved from bit from to bit to, to a term that makes the
// same move, or else adds a new term.
func joined(terms []term, from, to int, mask uint64) []term {
	t := term{from / 64, to / 64, (to%64 - from%64) & 63, mask << (to % 64)}
	for i := range terms {
		if one := &terms[i]; one.from == t.from && one.to == t.to && one.left == t.left {
			one.mask |= t.mask
			return terms
		}
	}
	return append(terms, t)
}

// wideBlocks is how many blocks are converted together, one term after the other.
const wideBlocks = 64

type sixtyFours [4][wideBlocks]uint64

// move applies terms to n blocks; size is the number of 16-bit values in a block of the
// result.
func (x *sixtyFours) move(to *sixtyFours, terms []term, size, n int) {
	for i := range (size + 3) / 4 {
		clear(to[i&3][:n])
	}
	for _, t := range terms {
		src, dst := x[t.from&3][:n], to[t.to&3][:n]
		for i, v := range src {
			dst[i] |= bits.RotateLeft64(v, t.left) & t.mask
		}
	}
}

// take reads up to wideBlocks blocks of size 16-bit values. It may read beyond a block;
// terms ignore those bits.
func (x *sixtyFours) take(src []byte, size int) (n int) {
	for ; n < wideBlocks && len(src) > 0; n++ {
		for i := range (size + 3) / 4 {
			x[i&3][n] = sixtyFour(src[8*i:])
		}
		src = src[2*size:]
	}
	return n
}

// sixtyFour reads 64 bits, or fewer at the end of src.
func sixtyFour(src []byte) (v uint64) {
	if len(src) >= 8 {
		return binary.LittleEndian.Uint64(src)
	}
	for i, b := range src {
		v |= uint64(b) << (8 * i)
	}
	return v
}

// put writes n blocks. What it writes beyond a block, the next block overwrites.
func (x *sixtyFours) put(dst []byte, size, n int) {
	for b := range n {
		for i := range (size + 3) / 4 {
			putSixtyFour(dst[8*i:], x[i&3][b])
		}
		dst = dst[2*size:]
	}
}

func putSixtyFour(dst []byte, v uint64) {
	if len(dst) >= 8 {
		binary.LittleEndian.PutUint64(dst, v)
		return
	}
	for i := range dst {
		dst[i] = byte(v >> (8 * i))
	}
}

func (w *wide) packBlocks(dst []byte, codes []uint16) {
	w.convert(dst[:len(codes)/w.values*w.words*2], kernel.AsBytes(codes), w.pack, w.words, w.values)
}

func (w *wide) unpackBlocks(codes []uint16, src []byte) {
	w.convert(kernel.AsBytes(codes), src[:len(codes)/w.values*w.words*2], w.unpack, w.values, w.words)
}

// convert turns blocks of from 16-bit values into blocks of to such values.
func (w *wide) convert(dst, src []byte, terms []term, to, from int) {
	var x, y sixtyFours
	for len(src) > 0 {
		n := x.take(src, from)
		x.move(&y, terms, to, n)
		y.put(dst, to, n)
		dst, src = dst[2*to*n:], src[2*from*n:]
	}
}
