package quant

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// NVFP4 is a weight of E2M1 codes in blocks of 16, each with an E4M3 scale,
// and one more scale for the tensor.
type NVFP4 struct {
	swizzled
	o BlockOptions
}

// NewNVFP4 resolves the format for a weight of shape [rows, columns].
func NewNVFP4(shape []int, o BlockOptions) (*NVFP4, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	return &NVFP4{newSwizzled(shape, 16, 16, 4), o}, nil
}

// Tensors returns the codes, the scales of the blocks and that of the tensor.
func (n *NVFP4) Tensors() []Tensor {
	return append(n.tensors(safetensors.U8, safetensors.F8_E4M3), Tensor{Scale2, safetensors.F32, []int{}})
}

// Cut is by the tiles of the scales; the tensor's scale follows from all.
func (n *NVFP4) Cut() Cut {
	c := n.cut()
	c.GroupRows, c.GroupCols = c.Rows, c.Cols
	return c
}

// Written returns what encoding an area fills.
func (n *NVFP4) Written(i int, a Area) []Span {
	switch {
	case i < 2:
		return n.span(i, a)
	case a.first():
		return Run(0, 4)
	}
	return nil
}

// Needed returns what decoding an area takes.
func (n *NVFP4) Needed(i int, a Area) []Span {
	if i < 2 {
		return n.span(i, a)
	}
	return Run(0, 4)
}

// Measure returns the range of an area.
func (n *NVFP4) Measure(a Area, values []float32) []Range { return n.Cut().measure(a, values) }

// Encode quantizes an area into the bytes that Written names.
func (n *NVFP4) Encode(dst [][]byte, p Patch, scratch *Scratch) error {
	r, err := n.rangeOf(&p, scratch)
	if err != nil {
		return err
	}
	tensor := r.absMax() / 2688 // the largest scale times the largest value
	if r.Lo != r.Lo {
		tensor = r.Lo
	}
	zero := tensor == 0
	if p.first() {
		stored := tensor
		if zero { // nothing to be told from zero
			stored = 1
		}
		binary.LittleEndian.PutUint32(dst[2], math.Float32bits(stored))
	}
	switch {
	case zero:
		clear(dst[0])
		clear(dst[1])
	case p.plain.data != nil:
		n.encodeRaw(dst, &p, n.rawRule(tensor, &p, scratch), scratch)
	default:
		n.encodeRows(dst, &p, tensor, scratch)
	}
	return nil
}

// rangeOf is the range of the weight, if the patch may be encoded.
func (n *NVFP4) rangeOf(p *Patch, scratch *Scratch) (Range, error) {
	if p.plain.data != nil {
		if p.Ranges != nil { // its pass has looked at every value
			return p.Ranges[0], nil
		}
		found, err := n.MeasureRaw(*p, scratch)
		if err != nil {
			return Range{}, err
		}
		return found[0], nil
	}
	if !n.o.AllowNonfinite {
		if err := p.checkFinite(n.shape[1]); err != nil {
			return Range{}, err
		}
	}
	return p.rangeOf(0, p.Area), nil
}

func (n *NVFP4) encodeRows(dst [][]byte, p *Patch, tensor float32, scratch *Scratch) {
	wide := n.padded(p.Area).Cols
	stride := n.stride(wide)
	sides, codes := sideCodes(roundUp(p.Rows, bandRows), stride, scratch), scratch.uint16s(wide)
	clear(codes[p.Cols:])
	for i := range p.Rows {
		row := p.row(i)
		for c := 0; c*n.block < len(row); c++ {
			block := row[c*n.block : min((c+1)*n.block, len(row))]
			n.o.rounded(block)
			sides[i*stride+c] = normalizeFP4(block, tensor)
		}
		kernel.EncodeSmall(codes[:len(row)], row, kernel.E2M1)
		putFours(dst[0][i*wide/2:(i+1)*wide/2], codes)
	}
	clear(dst[0][p.Rows*wide/2:])
	putScales(dst[1], sides, 0, stride)
}

// putFours puts two codes in a byte, the first in the high bits.
func putFours(dst []byte, codes []uint16) {
	for j := range dst {
		dst[j] = byte(codes[2*j]<<4 | codes[2*j+1])
	}
}

// normalizeFP4 divides a block by its scale and returns the scale's code.
func normalizeFP4(block []float32, tensor float32) byte {
	lo, hi := kernel.MinMax(block)
	amax := Range{lo, hi}.absMax()
	if lo != lo {
		amax = lo
	}
	scale := float32(amax/6) / tensor
	if scale > 448 {
		scale = 448
	}
	code := kernel.E4M3.Encode(scale)
	total := tensor * kernel.E4M3.Decode(code)
	if total == 0 {
		clear(block)
	} else {
		kernel.Divide(block, 0, total, -6, 6)
	}
	return byte(code)
}

// Decode restores an area from the bytes that Needed names. Scales are
// multiplied, and values by them, in the dtype out.
func (n *NVFP4) Decode(dst []float32, src [][]byte, a Area, out safetensors.Dtype, scratch *Scratch) {
	tensor := RoundTo(math.Float32frombits(binary.LittleEndian.Uint32(src[2])), out)
	scales := func(dst []float32, codes []byte) {
		kernel.DecodeBytes(dst, codes, []float32{tensor}, nil, len(codes), smallValues[kernel.E4M3])
		roundAll(dst, out)
	}
	n.decodeRows(dst, src, a, scales, smallValues[kernel.E2M1], scratch)
}
