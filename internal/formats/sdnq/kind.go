package sdnq

import (
	"fmt"
	"math"
)

// Kind is what a weight's values are to its layer. It says along which axis
// they share a scale, and what SDNQ's choice of group size is.
type Kind uint8

// The kinds. Weights of convolutions are [out, in, kernel…], of transposed
// convolutions [in, out, kernel…], with one to three kernel dimensions.
const (
	Linear        Kind = iota // [out, in]: along in
	Embedding                 // [entries, width]: along width
	Conv                      // along in, for each place of the kernel
	ConvTranspose             // along in, the first axis
)

// dimensions says how many a weight of that kind may have.
func (k Kind) dimensions() (least, most int) {
	if k == Conv || k == ConvTranspose {
		return 3, 5
	}
	return 2, 2
}

// geometry is a weight seen as a matrix of rows, and the axis along which its
// values share scales.
type geometry struct {
	shape    []int
	rows     int // the first axis
	rest     int // values of a row
	channels int // along which scales are shared
	kernel   int // places of the kernel
}

func newGeometry(shape []int, k Kind) (geometry, error) {
	least, most := k.dimensions()
	if len(shape) < least || len(shape) > most {
		return geometry{}, fmt.Errorf("%d dimensions, want %s", len(shape), between(least, most))
	}
	values := 1
	for _, n := range shape {
		if n < 1 || n > math.MaxInt/8/values {
			return geometry{}, fmt.Errorf("shape %v is empty or too large", shape)
		}
		values *= n
	}
	g := geometry{shape: shape, rows: shape[0], rest: values / shape[0], channels: shape[1]}
	g.kernel = g.rest / shape[1]
	if k == ConvTranspose {
		g.channels = shape[0]
	}
	return g, nil
}

func between(least, most int) string {
	if least == most {
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

func (g geometry) values() int { return g.rows * g.rest }
