package pack

import "github.com/tensorpress/tensorpress/internal/kernel"

// Bytes is [Pack] for widths up to 8 bits and codes of one byte each. At 8 bits dst may
// be the same memory as codes.
func Bytes(dst, codes []byte, bits int) {
	switch bits {
	case 8:
		copy(dst, codes)
	case 4:
		kernel.PackFours(dst, codes)
	case 2:
		kernel.PackTwos(dst, codes)
	default:
		n := len(codes) &^ 7
		at := Size(n, bits)
		kernel.MergeCodes(dst[:at], codes[:n], merges[bits])
		if n < len(codes) { // one block is left over, at 6 bits
			var rest [8]uint16
			for i, c := range codes[n:] {
				rest[i] = uint16(c)
			}
			packBlocks(dst[at:], rest[:len(codes)-n], bits)
		}
	}
}

// SplitBytes is the inverse of [Bytes]; codes must be whole blocks.
func SplitBytes(codes, src []byte, bits int) {
	switch bits {
	case 8:
		copy(codes, src)
		return
	case 4:
		kernel.SplitFours(codes, src)
		return
	}
	n := len(codes) &^ 7
	at := Size(n, bits)
	kernel.SplitCodes(codes[:n], src[:at], merges[bits])
	if n < len(codes) { // the last blocks have fewer than eight codes
		var rest [8]uint16
		unpackBlocks(rest[:len(codes)-n], src[at:], bits)
		for i := range codes[n:] {
			codes[n+i] = byte(rest[i])
		}
	}
}

// merges are the blocks of widths below 8, each for eight codes.
var merges = func() (all [8]*kernel.Merge) {
	for bits := 1; bits < 8; bits++ {
		b := &blocks[bits]
		all[bits] = kernel.NewMerge(Size(8, bits))
		for first := 0; first < 8; first += b.values {
			for _, p := range b.pieces {
				from := 8*(first+int(p.value)) + int(p.from)
				to := 8*(first/b.values*b.words+int(p.word)) + int(p.at)
				all[bits].Add(from-to, (1<<p.bits-1)<<to)
			}
		}
	}
	return all
}()
