// Package pack lays codes of 1 to 16 bits into storage words in SDNQ's bit
// order, and takes them out again. Codes are unsigned; a signed type's code is
// its value less the type's minimum. Blocks ignore rows and groups.
package pack

import (
	"encoding/binary"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// Values returns how many codes of that width make one block, the unit in
// which a tensor must be filled: 1 for 8 and 16 bits, which are not shared.
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

// WordBytes returns the size of a storage word: a byte to 8 bits, two above.
// One-bit codes lie eight to a 64-bit word, as SDNQ writes them.
func WordBytes(bits int) int {
	switch {
	case bits == 1:
		return 8
	case bits <= 8:
		return 1
	}
	return 2
}

// Size returns the bytes that n codes take; n fills whole blocks.
func Size(n, bits int) int {
	return n / Values(bits) * Words(bits) * WordBytes(bits)
}

// Pack writes codes, whole blocks of them, to dst, which has room for
// [Size] bytes. Bits above the width must be zero; those of SDNQ's uint9 to
// uint15, whose largest value is one too many, spill into a neighbour as they
// do in the reference.
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

// Unpack is the inverse of Pack: it fills codes, whole blocks of them.
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

// packNarrow narrows codes some at a time; any number of eights is whole blocks.
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

// split widens codes some at a time; any number of bytes is whole blocks.
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

// packFours takes codes for bytes of which every other is zero, and so makes them
// bytes the same way as these become halves of them.
func packFours(dst []byte, codes []uint16) {
	var bytes [512]byte
	for len(codes) > 0 {
		part := codes[:min(len(bytes), len(codes))]
		kernel.PackFours(bytes[:], kernel.AsBytes(part))
		kernel.PackFours(dst, bytes[:len(part)&^1])
		codes, dst = codes[len(part):], dst[len(part)/2:]
	}
}

// packBlocks takes codes of less than eight bits.
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
