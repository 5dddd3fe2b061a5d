package comfy

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// nvOffers are the codes of a block's scale that a search tries, counted from the plain
// one, which comes first and wins ties. E4M3 has eight codes an octave: with a scale up
// to nearly twice as large, the greatest magnitude falls on 4 or 3 in place of 6, and
// the finer levels below serve the others. Codes further down or up never gain more
// than a ten-thousandth of the error, nor do other scales of the tensor than the plain
// one gain more than a thousandth.
var nvOffers = [...]int{0, -2, -1, 1, 2, 3, 4, 5, 6, 7}

// nvGain is what another scale must leave at most of a block's error: sums in single
// precision are exact enough for that.
const nvGain = 1 - 1.0/1024

var e2m1Rounding = kernel.RoundingOf(1, 1, 6)

// nvSearch chooses the codes of scales for one tensor.
type nvSearch struct {
	tensor float32 // the tensor's scale, for which there are
	// inverses of scales, by their codes, and squares of scales in units of the tensor's
	// for the errors. Code 0, which restores zeros, has a scale far above all values
	// that it stands for. An inverse of 0 stands for a scale that blocks cannot have.
	inverses, squares [128]float32

	x        [kernel.LineLanes * 16]float32
	by, of   [len(nvOffers) * kernel.LineLanes]float32
	errors   [len(nvOffers) * kernel.LineLanes]float32
	last     []byte // of values, for lanes that have no block
	searched bool

	moments []float32 // by which errors of columns count; nil if all count alike
	area    tile.Area // that is encoded
	weights [kernel.LineLanes * 16]float32
}

// set fills the tables. It reports false for a tensor's scale that blocks cannot be
// divided by.
func (n *nvSearch) set(tensor float32) bool {
	if n.searched && n.tensor == tensor {
		return n.inverses[0] != 0
	}
	n.searched, n.tensor = true, tensor
	const zero = 0x28 // half of the tensor's scale: the values of code 0 are below a hundredth
	steps := kernel.Steps{}.Sized(1)
	n.inverses, n.squares = [128]float32{}, [128]float32{}
	if !steps.Set(0, 0, tensor) {
		return false
	}
	for code := range n.inverses[:0x7F] {
		of := kernel.E4M3.Decode(uint16(code))
		if code == 0 {
			of = kernel.E4M3.Decode(zero)
		}
		if steps.Set(0, 0, tensor*of) {
			n.inverses[code], n.squares[code] = steps.Inverses[0], of*of
		}
	}
	return n.inverses[0] != 0
}

// improve replaces codes of scales by ones that lose less, and sets the steps of those
// blocks. Only blocks of finite values have steps or, where these are 0, the code 0.
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
		kernel.ScaleErrors(n.errors[:], n.x[:], n.weigh(v.Col+16*at, len(some)), n.by[:], n.of[:], e2m1Rounding)
		for lane, code := range some {
			if best := n.best(lane, code); best != code {
				some[lane] = best
				steps.Set(at+lane, 0, n.tensor*kernel.E4M3.Decode(uint16(best)))
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
	for lane, plain := range codes {
		for j := range nvOffers {
			code := n.offered(plain, j)
			n.by[j*kernel.LineLanes+lane], n.of[j*kernel.LineLanes+lane] = n.inverses[code], n.squares[code]
		}
	}
}

// offered is the code that offer j has for a block, the plain one where there is no such
// scale.
func (n *nvSearch) offered(plain byte, j int) byte {
	code := int(plain) + nvOffers[j]
	if code < 1 || code > 0x7E || n.inverses[code] == 0 {
		return plain
	}
	return byte(code)
}

// best is the code with the least error, the first of equals.
func (n *nvSearch) best(lane int, plain byte) byte {
	const number = 15 // in the last bits of errors, whose order is that of their bits
	least := math.Float32bits(n.errors[lane]*nvGain) &^ number
	for j := 1; j < len(nvOffers); j++ {
		least = min(least, math.Float32bits(n.errors[j*kernel.LineLanes+lane])&^number|uint32(j))
	}
	return n.offered(plain, int(least&number))
}
