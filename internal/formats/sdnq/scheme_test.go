package sdnq

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestGroupsAreThoseOfReference: the loader derives the group from the shape
// and would read scales at the wrong places.
func TestGroupsAreThoseOfReference(t *testing.T) {
	for _, c := range []struct {
		dtype               string
		columns, size, want int
	}{
		{"int8", 3072, 0, 1024}, {"int8", 4608, 0, 1536}, {"int8", 11008, 0, 1376}, {"int8", 3584, 0, 1792},
		{"int8", 2560, 0, -1}, {"int8", 1536, 0, -1}, {"int8", 1024, 0, -1}, {"int8", 2048, 0, 1024},
		{"int8", 320, 64, 64}, {"int8", 1000, 64, 100}, {"int8", 100, 64, -1}, {"int8", 64, 64, -1},
		{"int8", 4608, 1024, 1536}, {"int8", 320, -1, -1}, {"int8", 320, -2, -2}, {"int8", 7, 1, 1}, {"int8", 1, 1, -1},
		{"uint1", 320, 0, 8}, {"uint2", 320, 0, 16}, {"uint3", 320, 0, 32}, {"uint4", 320, 0, 64},
		{"uint5", 1280, 0, 128}, {"int6", 1280, 0, 256}, {"float7_e3m3fn", 1024, 0, 512}, {"int9", 4096, 0, 2048},
		{"uint10", 8192, 0, 4096}, {"float16", 1 << 20, 0, 1 << 18},
	} {
		if got := groupOf(t, c.columns, Options{Dtype: golden.Dtype(t, c.dtype), GroupSize: c.size}); got != c.want {
			t.Errorf("%s, %d columns, group %d: %d, want %d", c.dtype, c.columns, c.size, got, c.want)
		}
	}
	// Every group must divide the row, with two groups or more.
	int8 := golden.Dtype(t, "int8")
	for columns := 1; columns < 700; columns++ {
		for size := 1; size < 70; size++ {
			got := groupOf(t, columns, Options{Dtype: int8, GroupSize: size})
			if got != -1 && (got < size || columns%got != 0 || columns/got < 2) {
				t.Fatalf("%d columns, group %d: %d", columns, size, got)
			}
		}
	}
}

// groupOf is the group size in effect along rows of that many columns.
func groupOf(t *testing.T, columns int, o Options) int {
	t.Helper()
	s, err := NewScheme([]int{64, columns}, o) // rows enough for whole words of any dtype
	if err != nil {
		t.Fatal(err)
	}
	return s.GroupSize
}

// TestRefusals: a weight would be stored that no reader restores.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		shape []int
		dtype string
		group int
		want  string
	}{
		{[]int{4, 4}, "int32", 0, "cannot store"},
		{[]int{4, 4}, "float32", 0, "cannot store"},
		{[]int{4, 4}, "float8_e8m0fnu", 0, "cannot store"},
		{[]int{4}, "int8", 0, "1 dimensions"},
		{[]int{4, 4, 4}, "int8", 0, "3 dimensions"},
		{[]int{0, 4}, "int8", 0, "empty"},
		{[]int{4, 0}, "int8", 0, "empty"},
		{[]int{4, -4}, "int8", 0, "empty"},
		{[]int{4, 4}, "int8", -3, "group size -3"},
		{[]int{3, 4}, "uint3", 0, "packs 8 values together, and 12 do not divide"},
		{[]int{3, 3}, "uint4", 0, "packs 2"},
		{[]int{1, 8}, "uint9", 0, "packs 16"},
		{[]int{2, 2}, "float6_e3m2fn", 0, ""},
		{[]int{3, 3}, "int8", 0, ""},
	} {
		_, err := Quantize(make([]float32, 1), c.shape, Options{Dtype: golden.Dtype(t, c.dtype), GroupSize: c.group})
		if c.want == "" {
			c.want = "1 values for shape"
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %s group %d: error %v, want %q", c.shape, c.dtype, c.group, err, c.want)
		}
	}
	if _, err := NewScheme([]int{1, 1}, Options{}); err == nil {
		t.Error("no dtype is accepted")
	}
	for _, shape := range [][]int{nil, {4}, {0, 4}, {4, 0}, {1, 2, 3}} {
		if _, err := comfy.NewScaled(shape, comfy.Int8Row, true, false); err == nil {
			t.Errorf("shape %v is accepted", shape)
		}
	}
	q, err := Quantize(make([]float32, 16), []int{2, 8}, Options{Dtype: golden.Dtype(t, "uint4")})
	if err != nil {
		t.Fatal(err)
	}
	for i := range q.Data {
		cut := &Quantized{q.Scheme, append([][]byte(nil), q.Data...)}
		cut.Data[i] = cut.Data[i][1:]
		if _, err := Dequantize(cut); err == nil {
			t.Errorf("%s of too few bytes is restored", q.Scheme.Tensors()[i].Role)
		}
	}
}

// step bounds |decoded - y| for a value y of the scaled weight in [Min, Max].
//   - Whole numbers are rounded to nearest: 1/2. uint9 to uint15 map the
//     maximum to one above the largest code: 1 there.
//   - Native floats are rounded to nearest: half of the step at y, which is
//     |y|·2^-m at most, or half of the least step.
//   - Packed floats go up from 9/16 of a step. Below the least normal, with
//     steps S there, 9/16 of a step U of y's own binade adds U before rounding
//     to S: the worst is U = S/2, y = 9/16·U above an even multiple, which goes
//     up by (2 - 9/16)·U = 23/32·S.
func step(d *dtype.Type, y float64) float64 {
	y = math.Abs(y)
	least := math.Ldexp(2, -1<<max(d.Exponent-1, 0)) * 2 // normal
	switch {
	case d.Class == dtype.Integer && y > d.Max:
		return d.Divisor - d.Max + 0.5
	case d.Class == dtype.Integer:
		return 0.5
	case d.Class == dtype.Native:
		return math.Ldexp(max(y, least), -d.Mantissa-1)
	case y < least:
		return 23. / 32 * math.Ldexp(least, -d.Mantissa)
	}
	_, e := math.Frexp(y)
	return 9. / 16 * math.Ldexp(1, e-1-d.Mantissa)
}

// checkError holds restored values, of scales in single precision, against the
// bound; single precision adds an error of about 2^-24 per operation, and one
// of half a subnormal step in the scale.
func checkError(t *testing.T, q *Quantized, w []float32) {
	t.Helper()
	back, err := Dequantize(q)
	if err != nil {
		t.Fatal(err)
	}
	d := q.Scheme.Dtype
	for i, v := range w {
		scale, zero := float64(valueOf(q, 1, i/q.Scheme.Group)), 0.0
		if d.Unsigned {
			zero = float64(valueOf(q, 2, i/q.Scheme.Group))
		}
		y := 0.0
		if scale != 0 {
			y = (float64(v) - zero) / scale
		}
		bound := step(d, y)*scale + (math.Abs(float64(v))+2*math.Abs(zero))*0x1p-21 + (d.Divisor+2)*0x1p-149
		if got := math.Abs(float64(back[i]) - float64(v)); !(got <= bound) {
			t.Fatalf("%v group %d: value %d, %x, is restored as %x, off by %g, scale %g, bound %g", d, q.Scheme.Group, i, v, back[i], got, scale, bound)
		}
	}
}

// TestDefaultKeepsEveryValue: in exact mode the maxima of uint9 to uint15 and
// what is just below 2 with one exponent bit are lost. By default they are
// not, and nothing else differs.
func TestDefaultKeepsEveryValue(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	types, lost := 0, map[string]int{}
	for _, d := range dtype.All() {
		if !d.Storable() {
			continue
		}
		types++
		for _, group := range []int{0, -1, 16} {
			w := tiletest.Sample(r, 16*64)
			for i := range w[:512] { // a dense grid, both signs
				w[i] = float32(i-256) / 256
			}
			o := Options{Dtype: d, GroupSize: group, ScaleDtype: safetensors.F32}
			plain, err := Quantize(w, []int{16, 64}, o)
			if err != nil {
				t.Fatal(err)
			}
			checkError(t, plain, w)
			o.ExactReference = true
			exact, err := Quantize(w, []int{16, 64}, o)
			if err != nil {
				t.Fatal(err)
			}
			n := compareModes(t, plain, exact, w)
			if n > 0 && !defective(d) {
				t.Errorf("%v: %d codes differ", d, n)
			}
			lost[d.Name] += n
		}
		if defective(d) && lost[d.Name] == 0 && d.Mantissa < 9 {
			t.Errorf("%v: nothing differs, so nothing was compared", d)
		}
	}
	if types != 172 {
		t.Errorf("%d types", types)
	}
}

// compareModes counts the codes that differ, and wants a reason for each.
func compareModes(t *testing.T, plain, exact *Quantized, w []float32) int {
	t.Helper()
	d, s := plain.Scheme.Dtype, plain.Scheme
	for i := range plain.Data[1:] {
		if string(plain.Data[i+1]) != string(exact.Data[i+1]) {
			t.Errorf("%v: scales differ", d)
		}
	}
	a, b := codesOf(plain), codesOf(exact)
	overflow := map[int]bool{} // blocks with a value that rounds to 2^bits
	for i, v := range w {
		scale := valueOf(plain, 1, i/s.Group)
		if d.Unsigned && math.RoundToEven(float64((v-valueOf(plain, 2, i/s.Group))/scale)) > d.Max {
			overflow[i/s.Block] = true
		}
	}
	n := 0
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		n++
		magnitude := uint16(1)<<(d.Exponent+d.Mantissa) - 1
		band := d.Class == dtype.Packed && a[i]&magnitude == 1<<d.Mantissa && b[i]&magnitude == 0
		if !band && !overflow[i/s.Block] {
			t.Fatalf("%v: value %d, %v, is code %#x, exact %#x", d, i, w[i], a[i], b[i])
		}
	}
	return n
}

// TestStoredShapes: a reader would refuse the file.
func TestStoredShapes(t *testing.T) {
	for _, c := range []struct {
		dtype string
		group int
		want  string
	}{
		{"int8", 0, "[{weight I8 [4 64]} {scale F32 [4 1]}]"},
		{"uint8", -2, "[{weight U8 [4 64]} {scale F32 [1 1]} {zero_point F32 [1 1]}]"},
		{"uint4", 16, "[{weight U8 [128]} {scale F32 [4 4 1]} {zero_point F32 [4 4 1]}]"},
		{"uint1", 0, "[{weight I64 [32]} {scale F32 [4 8 1]} {zero_point F32 [4 8 1]}]"},
		{"int3", -1, "[{weight U8 [32 3]} {scale F32 [4 1]}]"},
		{"uint11", -1, "[{weight I16 [16 11]} {scale F32 [4 1]} {zero_point F32 [4 1]}]"},
		{"float8_e4m3fn", 32, "[{weight F8_E4M3 [4 2 32]} {scale F32 [4 2 1]}]"},
		{"float16_e5m10fn", 32, "[{weight U16 [4 2 32]} {scale F32 [4 2 1]}]"},
	} {
		s, err := NewScheme([]int{4, 64}, Options{Dtype: golden.Dtype(t, c.dtype), GroupSize: c.group, ScaleDtype: safetensors.F32})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(s.Tensors()); got != c.want {
			t.Errorf("%s group %d: %s, want %s", c.dtype, c.group, got, c.want)
		}
	}
}
