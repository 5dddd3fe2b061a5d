package kernel

import (
	"encoding/binary"
)

// Merge packs eight codes of one byte each into fewer bytes. Of the codes as a
// little-endian number x, the result is the low bytes of (x>>shift)&mask, or'ed over
// all terms, of which there are at most eight.
type Merge struct {
	Bytes   int // bytes that eight codes become
	n       int
	shifts  [8][2]uint64 // the layout of this and the rest is known to assembly
	masks   [8][8]uint64
	shuffle [16]byte
	spread  [16]byte // the inverse of shuffle
}

// NewMerge returns a Merge without terms that packs eight codes into size bytes.
func NewMerge(size int) *Merge {
	m := &Merge{Bytes: size, n: 1} // the first term has shift 0
	for i := range m.shuffle {
		if m.shuffle[i] = 0x80; i < size { // 0x80 selects no byte
			m.shuffle[i] = byte(i)
		} else if i < 2*size {
			m.shuffle[i] = byte(8 + i - size)
		}
		if m.spread[i] = 0x80; i%8 < size {
			m.spread[i] = byte(i/8*size + i%8)
		}
	}
	return m
}

// Add adds a term, or adds mask to a term with the same shift. It panics if there are
// more than eight.
func (m *Merge) Add(shift int, mask uint64) {
	i := 0
	for i < m.n && m.shifts[i][0] != uint64(shift) {
		i++
	}
	m.n = max(m.n, i+1)
	m.shifts[i][0] = uint64(shift)
	for j := range m.masks[i] {
		m.masks[i][j] |= mask
	}
}

// apply merges eight codes.
func (m *Merge) apply(x uint64) (y uint64) {
	for i := range m.n {
		y |= x >> (m.shifts[i][0] & 63) & m.masks[i][0]
	}
	return y
}

// SplitCodes is the inverse of MergeCodes.
func SplitCodes(codes, src []byte, m *Merge) { active.split(codes, src, m) }

func split(codes, src []byte, m *Merge) {
	var last [8]byte
	for ; len(codes) >= 8; codes, src = codes[8:], src[m.Bytes:] {
		from := src
		if len(src) < 8 {
			copy(last[:], src)
			from = last[:]
		}
		y, x := binary.LittleEndian.Uint64(from), uint64(0)
		for i := range m.n {
			x |= y & m.masks[i][0] << (m.shifts[i][0] & 63)
		}
		binary.LittleEndian.PutUint64(codes, x)
	}
}

// PackFours packs the low 4 bits of codes, one code a byte and an even number of them,
// two to a byte. The first code takes the low bits.
func PackFours(dst, codes []byte) { active.packFours(dst, codes) }

// PackFoursHigh is PackFours with the first code in the high bits.
func PackFoursHigh(dst, codes []byte) { active.packFoursHigh(dst, codes) }

// SplitFours is the inverse of PackFours.
func SplitFours(codes, src []byte) { active.splitFours(codes, src) }

// SplitFoursHigh is the inverse of PackFoursHigh.
func SplitFoursHigh(codes, src []byte) { active.splitFoursHigh(codes, src) }

// PackTwos packs the low 2 bits of codes, one code a byte and a multiple of four of
// them, four to a byte.
func PackTwos(dst, codes []byte) { active.packTwos(dst, codes) }

// MergeCodes packs codes, a multiple of eight, by m.
func MergeCodes(dst, codes []byte, m *Merge) { active.merge(dst, codes, m) }

func packFours(dst, codes []byte) {
	for ; len(codes) >= 8; codes, dst = codes[8:], dst[4:] {
		x := binary.LittleEndian.Uint64(codes) & 0x0F0F0F0F0F0F0F0F
		x = (x | x>>4) & 0x00FF00FF00FF00FF
		x = (x | x>>8) & 0x0000FFFF0000FFFF
		binary.LittleEndian.PutUint32(dst, uint32(x|x>>16))
	}
	for i := range len(codes) / 2 {
		dst[i] = codes[2*i]&15 | codes[2*i+1]<<4
	}
}

func packFoursHigh(dst, codes []byte) {
	for i := range len(codes) / 2 {
		dst[i] = codes[2*i]<<4 | codes[2*i+1]&15
	}
}

func splitFours(codes, src []byte) {
	for ; len(codes) >= 8; codes, src = codes[8:], src[4:] {
		x := spread(src)
		binary.LittleEndian.PutUint64(codes, (x|x<<4)&0x0F0F0F0F0F0F0F0F)
	}
	for i := range len(codes) / 2 {
		codes[2*i], codes[2*i+1] = src[i]&15, src[i]>>4
	}
}

func splitFoursHigh(codes, src []byte) {
	for ; len(codes) >= 8; codes, src = codes[8:], src[4:] {
		x := spread(src)
		binary.LittleEndian.PutUint64(codes, (x>>4|x<<8)&0x0F0F0F0F0F0F0F0F)
	}
	for i := range len(codes) / 2 {
		codes[2*i], codes[2*i+1] = src[i]>>4, src[i]&15
	}
}

// spread widens four bytes to words of 16 bits.
func spread(src []byte) uint64 {
	x := uint64(binary.LittleEndian.Uint32(src))
	x = (x | x<<16) & 0x0000FFFF0000FFFF
	return (x | x<<8) & 0x00FF00FF00FF00FF
}

func packTwos(dst, codes []byte) {
	for i := range len(codes) / 4 {
		c := codes[4*i : 4*i+4]
		dst[i] = c[0]&3 | c[1]&3<<2 | c[2]&3<<4 | c[3]<<6
	}
}

func merge(dst, codes []byte, m *Merge) {
	dst = dst[:len(codes)/8*m.Bytes]
	for ; len(codes) > 0; codes, dst = codes[8:], dst[m.Bytes:] {
		y := m.apply(binary.LittleEndian.Uint64(codes))
		if len(dst) >= 8 {
			binary.LittleEndian.PutUint64(dst, y) // the next turn overwrites the bytes beyond size
			continue
		}
		for i := range m.Bytes {
			dst[i] = byte(y >> (8 * i))
		}
	}
}
