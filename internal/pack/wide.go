package pack

import (
	"encoding/binary"
	"math/bits"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// A wide block packs codes of 9 to 15 bits, four of which lie in 64 bits, as do four
// words. Bits that move together are a term.
type wide struct {
	values, words int // of a block
	pack, unpack  []term
}

// term takes bits of one 64 of a block to another one's.
type term struct {
	from, to, left int // 64s, and by how much they are rotated
	mask           uint64
}

// wides are by width, made of the blocks.
var wides = func() (all [16]*wide) {
	for width := 9; width < 16; width++ {
		b := &blocks[width]
		w := &wide{values: b.values, words: b.words}
		for _, p := range b.pieces {
			from, to := 16*int(p.value)+int(p.from), 16*int(p.word)+int(p.at)
			mask := uint64(1)<<p.bits - 1
			w.unpack = joined(w.unpack, to, from, mask)
			if p.from == 0 { // a value's lowest piece lets overflow through
				mask = 1<<(16-p.at) - 1
			}
			w.pack = joined(w.pack, from, to, mask)
		}
		all[width] = w
	}
	return all
}()

// joined adds bits from a place on to a term that takes others as far, or to a new one.
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

// wideBlocks are worked off together, one term after the other.
const wideBlocks = 64

type sixtyFours [4][wideBlocks]uint64

// move takes the bits of n blocks to where terms say, among so many 16 bits of each.
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

// take reads blocks of that many 16 bits. What it reads beyond a block no term takes.
func (x *sixtyFours) take(src []byte, size int) (n int) {
	for ; n < wideBlocks && len(src) > 0; n++ {
		for i := range (size + 3) / 4 {
			x[i&3][n] = sixtyFour(src[8*i:])
		}
		src = src[2*size:]
	}
	return n
}

// sixtyFour reads 64 bits, or as many as there are.
func sixtyFour(src []byte) (v uint64) {
	if len(src) >= 8 {
		return binary.LittleEndian.Uint64(src)
	}
	for i, b := range src {
		v |= uint64(b) << (8 * i)
	}
	return v
}

// put writes n of them. What it writes beyond a block is the next one's place.
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

// convert makes blocks of one size of those of another, in 16 bits.
func (w *wide) convert(dst, src []byte, terms []term, to, from int) {
	var x, y sixtyFours
	for len(src) > 0 {
		n := x.take(src, from)
		x.move(&y, terms, to, n)
		y.put(dst, to, n)
		dst, src = dst[2*to*n:], src[2*from*n:]
	}
}
