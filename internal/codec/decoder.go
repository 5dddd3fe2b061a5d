package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
)

// Scheme returns how SDNQ stores the weight, nil if it does not.
func Scheme(c Codec) *sdnq.Scheme {
	s, _ := c.(*sdnq.Scheme)
	return s
}

// Approximate returns a codec that decodes to nearly the same values in a fraction of
// the time, or nil if there is none.
func Approximate(c Codec) Codec {
	if s := Scheme(c); s != nil && s.Hadamard > 0 {
		return sdnq.Decoder{Scheme: s, Approximate: true}
	}
	return nil
}

// SharedTensors returns the indices of the stored tensors that every area needs whole,
// and a function that makes of their contents a codec that need not read them, or says
// what is wrong with them.
func SharedTensors(c Codec) (tensors []int, withShared func(src [][]byte) (Codec, error)) {
	switch c := c.(type) {
	case *stack:
		return c.shared()
	case publishedWeight:
		return c.shared()
	}
	d, ok := decoder(c)
	if !ok || d.SharedTensor() == 0 {
		return nil, nil
	}
	return []int{d.SharedTensor()}, func(src [][]byte) (Codec, error) { return d.WithShared(src[0]), nil }
}

// ByRows returns, for a layer whose codes are stored column by column, a codec that
// takes them in row-major order and the function that transposes them, see
// [sdnq.Scheme.Transpose]; nil for other layers.
func ByRows(c Codec) (byRows Codec, transpose func(dst, src []byte, column int)) {
	if p, ok := c.(publishedWeight); ok {
		return p.byRows()
	}
	d, ok := decoder(c)
	if !ok || !d.Transposed {
		return nil, nil
	}
	d.ByRows = true
	return d, d.Transpose
}

// decoder returns the decoder of a layer of SDNQ's; ok is false for other layers.
func decoder(c Codec) (d sdnq.Decoder, ok bool) {
	if s := Scheme(c); s != nil {
		return s.Decoder(), true
	}
	d, ok = c.(sdnq.Decoder)
	return d, ok
}
