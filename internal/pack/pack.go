// Package pack packs codes of 1 to 16 bits into storage words in SDNQ's bit order, and
// unpacks them. Codes are unsigned; the code of a signed type is its value minus the
// type's minimum. Blocks may cross the ends of rows and groups.
package pack

import (
	"encoding/binary"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// Values returns how many codes of that width make a block. A tensor must consist of
// whole blocks. It is 1 for 8 and 16 bits, which share no words.
func Values(bits int) int {
	if bits == 8 || bits == 16 {
		return 1
	}
	return blocks[bits].values
}

// Words returns how many storage words a block of that width takes.
func Words(bits int) int {
	if bits == 8 || bits == 16 {
		return 1
	}
	return blocks[bits].words
}

// WordBytes returns the size of a storage word in bytes: 1 for widths to 8 bits, 2
// above. SDNQ stores eight one-bit codes in a word of 8 bytes.
func WordBytes(bits int) int {
	switch {
	case bits == 1:
		return 8
	case bits <= 8:
		return 1
	}
	return 2
}

// Size returns how many bytes n codes take; n must be whole blocks.
func Size(n, bits int) int {
	return n / Values(bits) * Words(bits) * WordBytes(bits)
}

// Pack packs codes, which must be whole blocks, into [Size] bytes of dst. Bits above
// the width must be zero. SDNQ's types uint9 to uint15 break that with their largest
// value, which is one too many: its top bit spills into a neighbour as in the
// reference.
func Pack(dst []byte, codes []uint16, bits int) {
	switch bits {
	case 8:
		for i, c := range codes {
			dst[i] = byte(c)
		}
	case 16:
		for i, c := range codes {
			binary.LittleEndian.PutUint16(dst[2*i:], c)
		}
	case 4:
		packFours(dst, codes)
	case 1, 2, 3, 5, 6, 7:
		packNarrow(dst, codes, bits)
	default:
		wides[bits].packBlocks(dst, codes)
	}
}

// Unpack is the inverse of Pack; codes must be whole blocks.
func Unpack(codes []uint16, src []byte, bits int) {
	switch bits {
	case 8:
		for i := range codes {
			codes[i] = uint16(src[i])
		}
	case 16:
		for i := range codes {
			codes[i] = binary.LittleEndian.Uint16(src[2*i:])
		}
	case 1, 2, 3, 4, 5, 6, 7:
		split(codes, src, bits)
	default:
		wides[bits].unpackBlocks(codes, src)
	}
}

// packNarrow narrows codes to bytes, some at a time. Any multiple of eight codes is
// whole blocks.
func packNarrow(dst []byte, codes []uint16, bits int) {
	var bytes [512]byte
	for at := 0; at < len(codes); at += len(bytes) {
		part := bytes[:min(len(bytes), len(codes)-at)]
		for i := range part {
			part[i] = byte(codes[at+i])
		}
		Bytes(dst[Size(at, bits):], part, bits)
	}
}

// split widens codes from bytes, some at a time. Any multiple of 512 codes is whole
// blocks.
func split(codes []uint16, src []byte, bits int) {
	var bytes [512]byte
	for at := 0; at < len(codes); at += len(bytes) {
		part := bytes[:min(len(bytes), len(codes)-at)]
		SplitBytes(part, src[Size(at, bits):], bits)
		for i, c := range part {
			codes[at+i] = uint16(c)
		}
	}
}

// packFours packs four-bit codes. As little-endian bytes, every other byte is zero:
// packing those in pairs gives one code per byte, and packing again gives two.
func packFours(dst []byte, codes []uint16) {
	var bytes [512]byte
	for len(codes) > 0 {
		part := codes[:min(len(bytes), len(codes))]
		kernel.PackFours(bytes[:], kernel.AsBytes(part))
		kernel.PackFours(dst, bytes[:len(part)&^1])
		codes, dst = codes[len(part):], dst[len(part)/2:]
	}
}

// packBlocks packs codes of fewer than eight bits.
func packBlocks(dst []byte, codes []uint16, bits int) {
	b := &blocks[bits]
	for ; len(codes) > 0; codes, dst = codes[b.values:], dst[b.words:] {
		clear(dst[:b.words])
		for _, p := range b.pieces {
			dst[p.word] |= byte(codes[p.value] >> p.from & (1<<p.bits - 1) << p.at)
		}
	}
}

func unpackBlocks(codes []uint16, src []byte, bits int) {
	b := &blocks[bits]
	clear(codes)
	for ; len(codes) > 0; codes, src = codes[b.values:], src[b.words:] {
		for _, p := range b.pieces {
			codes[p.value] |= uint16(src[p.word]) >> p.at & (1<<p.bits - 1) << p.from
		}
	}
}
