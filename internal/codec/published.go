package codec

import (
	dtypes "github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// publishedWeight is a layer as another program publishes it. It is read, and not
// written.
type publishedWeight struct{ published.Weight }

// Published makes the codec of a layer that another program has published.
func Published(w published.Weight) Codec { return publishedWeight{w} }

// IsPublished reports whether a codec is of a layer that another program has published.
func IsPublished(c Codec) bool {
	_, ok := c.(publishedWeight)
	return ok
}

// Decode computes in single precision, whatever the dtype out.
func (p publishedWeight) Decode(dst []float32, src [][]byte, a tile.Area, _ safetensors.Dtype, s *tile.Scratch) {
	p.Weight.Decode(dst, src, a, s)
}

// Written is nothing: there is no encoder.
func (publishedWeight) Written(int, tile.Area) []tile.Span { return nil }

// NewEncoder returns nil.
func (publishedWeight) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// shared are the tensors of which each area takes all, and what makes a codec of their
// contents that needs them no more.
func (p publishedWeight) shared() (tensors []int, take func(src [][]byte) (Codec, error)) {
	w, ok := p.Weight.(published.Sharing)
	if !ok {
		return nil, nil
	}
	return w.Shared(), func(src [][]byte) (Codec, error) {
		held, err := w.WithShared(src)
		if err != nil {
			return nil, err
		}
		return publishedWeight{held}, nil
	}
}

// byRows is a codec that takes codes by rows, of one whose codes lie by columns.
func (p publishedWeight) byRows() (Codec, func(dst, src []byte, column int)) {
	if w, ok := p.Weight.(published.ByColumns); ok {
		if turned, transpose := w.ByRows(); turned != nil {
			return publishedWeight{turned}, transpose
		}
	}
	return nil, nil
}

// ScaleRows is how many rows share a scale of a layer that [ByRows] takes the scales of by
// rows too, a byte each; 0 for other layers.
func ScaleRows(c Codec) int {
	if p, ok := c.(publishedWeight); ok {
		if w, ok := p.Weight.(published.ScalesByColumns); ok {
			if turned, _ := w.ByRows(); turned != nil {
				return w.ScaleRows()
			}
		}
	}
	return 0
}

// InStrips returns, for a layer that decodes to BF16 at once from strips of a few rows, a
// codec that takes its codes so, and the function that puts them so, see
// [published.InStrips]; nil for other layers.
func InStrips(c Codec) (inStrips Codec, gather func(dst, src []byte, column int)) {
	if p, ok := c.(publishedWeight); ok {
		if w, ok := p.Weight.(published.InStrips); ok {
			if strips, gather := w.InStrips(); strips != nil {
				return publishedWeight{strips}, gather
			}
		}
	}
	return nil, nil
}

// DecodeBF16 decodes an area to BF16 at once. It reports false, and dst is anything, unless
// all values are finite.
func DecodeBF16(c Codec, dst []byte, src [][]byte, a tile.Area, s *tile.Scratch) bool {
	if p, ok := c.(publishedWeight); ok {
		if w, ok := p.Weight.(published.Direct); ok {
			return w.DecodeBF16(dst, src, a, s)
		}
	}
	return false
}

// Holding is the format of ComfyUI's that has all values of a published layer though not
// its codes, nil where none has: 4-bit floats times powers of two are 8-bit floats times
// such.
func Holding(c Codec) *Format {
	if p, ok := c.(publishedWeight); ok {
		if w, ok := p.Weight.(*published.Fours); ok && w.Block() == 32 {
			return mxfp8
		}
	}
	return nil
}

// PublishedInSDNQ returns the settings of the SDNQ layer nearest to a published one: of
// the dtype that its codes are nearest to, with as many scales along rows.
func PublishedInSDNQ(dtype string, c Codec, kind sdnq.Kind) Settings {
	s := Default()
	if t := dtypes.Lookup(dtype); t == nil || !t.Storable() { // levels that SDNQ has not
		dtype = "uint4"
	}
	s.Dtype, s.Kind, s.GroupSize = dtype, kind, alongRows(c, kind)
	return s
}
