package sdnq

import (
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
)

// MatmulDtype returns the dtype in which SDNQ multiplies weights stored in t,
// unless it is told another.
func MatmulDtype(t *dtype.Type) *dtype.Type {
	name := "float16"
	switch {
	case t.Name == "uint8":
		name = "uint8"
	case t.Class == dtype.Integer:
		name = "int8"
	case t.Bits < 16:
		name = "float8_e4m3fn"
	}
	return dtype.Lookup(name)
}

// matmulDtypes are those that SDNQ takes.
var matmulDtypes = []string{"int8", "uint8", "float8_e4m3fn", "float16"}

// ParseMatmulDtype returns the dtype of a name that SDNQ takes for products.
func ParseMatmulDtype(name string) (*dtype.Type, error) {
	t, err := dtype.Parse(name)
	if err != nil {
		return nil, err
	}
	for _, known := range matmulDtypes {
		if t.Name == known {
			return t, nil
		}
	}
	return nil, fmt.Errorf("no products in %s: there are %s", name, strings.Join(matmulDtypes, ", "))
}

// multiplies reports whether SDNQ multiplies the weight in its stored form:
// linear and convolution weights of at least 32 by 32 channels, both multiples
// of 16.
func multiplies(o Options, g geometry) bool {
	if !o.Matmul || o.Kind == Embedding || o.Kind == ConvTranspose {
		return false
	}
	out, in := g.rows, g.channels
	return out >= 32 && in >= 32 && out%16 == 0 && in%16 == 0
}

// requantizes reports whether SDNQ must quantize the weight anew for products
// in q, however it is grouped; then it stores no transposed weight.
func requantizes(o Options, q *dtype.Type) bool {
	w := o.Dtype
	switch {
	case o.Codebook, o.ScaleStore != nil, o.ZeroPointStore != nil,
		w.Bits > q.Bits,
		(w.Class == dtype.Integer) != (q.Class == dtype.Integer),
		w.Unsigned && q.Class != dtype.Integer:
		return true
	}
	return w.Class == dtype.Packed && q.Class != dtype.Integer && (w.Bits >= q.Bits || w.Max > q.Max)
}
