package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
)

// Scheme returns how SDNQ stores the weight, nil if it does not.
func Scheme(c Codec) *sdnq.Scheme {
	s, _ := c.(*sdnq.Scheme)
	return s
}

// Near returns a codec that decodes to nearly the same values in a fraction of the
// time, or nil if there is none.
func Near(c Codec) Codec {
	if s := Scheme(c); s != nil && s.Hadamard > 0 {
		return sdnq.Decoder{Scheme: s, Approximate: true}
	}
	return nil
}

// Once returns the numbers of the stored tensors that every area takes all of, and what
// makes a codec of their content that needs them no more.
func Once(c Codec) (tensors []int, take func(src [][]byte) Codec) {
	if s, ok := c.(*stack); ok {
		return s.once()
	}
	d, ok := decoder(c)
	if !ok || d.SharedTensor() == 0 {
		return nil, nil
	}
	return []int{d.SharedTensor()}, func(src [][]byte) Codec { return d.WithShared(src[0]) }
}

// ByRows returns a codec that takes codes by rows, and what puts them so, see
// [sdnq.Scheme.Straighten], where they lie by columns; else nil.
func ByRows(c Codec) (byRows Codec, straighten func(dst, src []byte, column int)) {
	d, ok := decoder(c)
	if !ok || !d.Transposed {
		return nil, nil
	}
	d.ByRows = true
	return d, d.Transpose
}

// decoder returns what restores a layer of SDNQ's; ok is false for others.
func decoder(c Codec) (d sdnq.Decoder, ok bool) {
	if s := Scheme(c); s != nil {
		return s.Decoder(), true
	}
	d, ok = c.(sdnq.Decoder)
	return d, ok
}
