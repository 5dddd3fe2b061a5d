package pack

import "github.com/tensorpress/tensorpress/internal/kernel"

// Bytes is [Pack] for codes of a byte each, of widths to 8 bits. At 8 bits dst
// may be codes.
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
		if n < len(codes) { // half of what is merged, at 6 bits
			var rest [8]uint16
			for i, c := range codes[n:] {
				rest[i] = uint16(c)
			}
			Pack(dst[at:], rest[:len(codes)-n], bits)
		}
	}
}

// merges are the blocks of widths that do not divide 8, and of one bit, for
// eight codes at a time.
var merges = func() (all [8]*kernel.Merge) {
	for _, bits := range []int{1, 3, 5, 6, 7} {
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

// split unpacks eight codes at a time, wherever blocks end.
func split(codes []uint16, src []byte, bits int) {
	var bytes [512]byte
	n := len(codes) &^ 7
	for at := 0; at < n; at += len(bytes) {
		part := bytes[:min(len(bytes), n-at)]
		kernel.SplitCodes(part, src[Size(at, bits):Size(at+len(part), bits)], merges[bits])
		for i, c := range part {
			codes[at+i] = uint16(c)
		}
	}
	if n < len(codes) { // half of what is split, at 6 bits
		unpackBlocks(codes[n:], src[Size(n, bits):], bits)
	}
}
