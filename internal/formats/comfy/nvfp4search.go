package comfy

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/search"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// nvOffers are the codes of a block's scale that a search tries, counted from the plain
// one, which comes first and wins ties. E4M3 has eight codes an octave: with a scale up
// to nearly twice as large, the greatest magnitude falls on 4 or 3 in place of 6, and
// the finer levels below serve the others. Codes further down or up never gain more
// than a ten-thousandth of the error, nor do other scales of the tensor than the plain
// one gain more than a thousandth.
var nvOffers = [...]int{0, -2, -1, 1, 2, 3, 4, 5, 6, 7}

var e2m1Rounding = kernel.RoundingOf(1, 1, 6)

// nvSearch chooses the codes of scales for one tensor.
type nvSearch struct {
	tensor float32 // the tensor's scale, for which there are offers
	usable bool
	offers [len(nvOffers)]nvTable

	x          [kernel.LineLanes * 16]float32
	by, square [len(nvOffers) * kernel.LineLanes]float32
	errors     [len(nvOffers) * kernel.LineLanes]float32
	numbers    [kernel.LineLanes]uint32
	last       []byte // values of the last blocks, with zeros for lanes that have none

	moments []float32 // by which errors of columns count; nil if all count alike
	area    tile.Area // that is encoded
	weights [kernel.LineLanes * 16]float32
}

// nvTable is what one of the offers has for every plain code: another code, the inverse
// of its scale, and the square of the scale in units of the tensor's. An offer that there
// is not is the plain code.
type nvTable struct {
	codes            [128]byte
	inverses, square [128]float32
}

// set makes the offers. It reports false for a tensor's scale that blocks cannot be
// divided by.
func (n *nvSearch) set(tensor float32) bool {
	if n.tensor == tensor {
		return n.usable
	}
	n.tensor = tensor
	steps := kernel.Steps{}.Sized(1)
	if n.usable = steps.Set(0, 0, tensor); !n.usable {
		return false
	}
	for j, offer := range nvOffers {
		for plain := range 0x7F {
			code := plain + offer
			if code < 1 || code > 0x7E || !steps.Set(0, 0, tensor*kernel.E4M3.Decode(uint16(code))) {
				code = plain
			}
			// Code 0 restores zeros, as does a scale far above all values that it stands for:
			// a quarter of the tensor's.
			of := kernel.E4M3.Decode(uint16(code))
			if code == 0 {
				of = 0.25
			}
			steps.Set(0, 0, tensor*of)
			t := &n.offers[j]
			t.codes[plain], t.inverses[plain], t.square[plain] = byte(code), steps.Inverses[0], of*of
		}
	}
	return true
}

// improve replaces codes of scales by ones that lose less, and sets the steps of those
// blocks. All values are finite.
func (n *nvSearch) improve(codes []byte, steps kernel.Steps, v tile.Values, s *tile.Scratch) {
	data, raw := v.Raw(s)
	size := 16 * raw.Bytes()
	for at := 0; at < len(codes); at += kernel.LineLanes {
		some := codes[at:min(at+kernel.LineLanes, len(codes))]
		block := data[at*size : (at+len(some))*size]
		if len(some) < kernel.LineLanes {
			n.last = append(append(n.last[:0], block...), make([]byte, (kernel.LineLanes-len(some))*size)...)
			block = n.last
		}
		kernel.Magnitudes(n.x[:], block, raw, 16)
		n.offer(some)
		kernel.ScaleErrors(n.errors[:], n.x[:], n.weigh(v.Col+16*at, len(some)), n.by[:], n.square[:], e2m1Rounding)
		kernel.LeastErrors(&n.numbers, n.errors[:], search.Gain)
		for lane, plain := range some {
			if code := n.offers[n.numbers[lane]].codes[plain]; code != plain {
				some[lane] = code
				steps.Set(at+lane, 0, n.tensor*kernel.E4M3.Decode(uint16(code)))
			}
		}
	}
}

// weigh lays out how much the values of some blocks count, which begin at a place of the
// area's rows, one after the other.
func (n *nvSearch) weigh(place, blocks int) []float32 {
	if n.moments == nil {
		return nil
	}
	a := n.area
	place -= a.Row*a.Cols + a.Col
	for lane := range blocks {
		column := a.Col + (place+16*lane)%a.Cols
		for i, m := range n.moments[column : column+16] {
			n.weights[i*kernel.LineLanes+lane] = m
		}
	}
	return n.weights[:]
}

// offer lists scales for the blocks of codes.
func (n *nvSearch) offer(codes []byte) {
	for j := range n.offers {
		t, at := &n.offers[j], j*kernel.LineLanes
		by, square := n.by[at:at+kernel.LineLanes], n.square[at:at+kernel.LineLanes]
		for lane, plain := range codes {
			by[lane], square[lane] = t.inverses[plain&0x7F], t.square[plain&0x7F]
		}
	}
}
