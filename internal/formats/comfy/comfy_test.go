package comfy

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// sheet is a format that is cut into areas.
type sheet interface {
	Shape() []int
	Tensors() []tile.Tensor
	Cut() tile.Cut
	Written(i int, a tile.Area) []tile.Span
	Needed(i int, a tile.Area) []tile.Span
	NewEncoder(from safetensors.Dtype, memory int) tile.Encoder
	Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, s *tile.Scratch)
}

// newSheet makes the format of a golden row; grouped and row-scaled ones are
// compared as [Scaled].
func newSheet(t *testing.T, name string, shape []int, size int) sheet {
	t.Helper()
	exact := BlockOptions{ExactReference: true}
	var s sheet
	var err error
	switch name {
	case "mxfp8":
		s, err = NewMXFP8(shape, exact)
	case "nvfp4":
		s, err = NewNVFP4(shape, exact)
	case "float8_e4m3fn_blockwise":
		s, err = NewBlocks(shape, E4M3Group, size, false)
	case "int8_blockwise":
		s, err = NewBlocks(shape, Int8Block, size, false)
	case "awq_w4a16":
		s, err = NewAWQ(shape, size, safetensors.BF16, false)
	case "int8_convrot":
		s, err = NewRotated(shape, size, Int8Rotated, false)
	case "convrot_w4a4":
		s, err = NewConvRotW4A4(shape, size, false)
	case "asym_w4a8_int8":
		group := 16
		if size == 4 {
			group = 64 // in the cases with a codebook of their own
		}
		s, err = NewW4A8(shape, group, size, 4, false)
	case "asym_w4a8_int8_6":
		s, err = NewW4A8(shape, 16, size, 6, false)
	default:
		t.Fatalf("no format %s", name)
	}
	if err != nil {
		t.Fatalf("%s %v %d: %v", name, shape, size, err)
	}
	return s
}

func wholeArea(s sheet) tile.Area {
	return tile.Area{Row: 0, Col: 0, Rows: s.Shape()[0], Cols: s.Shape()[1]}
}

// press stores a weight at once, after its survey.
func press(t *testing.T, s sheet, w []float32) (sheet, [][]byte) {
	t.Helper()
	s = surveyed(t, s, w)
	data := room(s)
	pressArea(t, s, data, wholeArea(s), w, nil)
	return s, data
}

// encoderOf has room for all of the weight.
func encoderOf(s sheet) *tile.Ranged {
	return s.NewEncoder(safetensors.F32, math.MaxInt).(*tile.Ranged)
}

// pressArea stores an area of w.
func pressArea(t *testing.T, s sheet, data [][]byte, a tile.Area, w []float32, ranges []tile.Range) {
	t.Helper()
	parts := make([][]byte, len(data))
	for i := range parts {
		parts[i] = make([]byte, tile.SpanBytes(s.Written(i, a)))
		for j := range parts[i] {
			parts[i][j] = 0x5A
		}
	}
	if err := encoderOf(s).Fill(parts, tile.ValuesOf(a, areaOf(s, a, w)), ranges, new(tile.Scratch)); err != nil {
		t.Fatal(err)
	}
	for i, part := range parts {
		tiletest.EachRun(s.Written(i, a), func(from, to int64) {
			copy(data[i][from:to], part)
			part = part[to-from:]
		})
	}
}

// areaOf copies an area's values.
func areaOf(s sheet, a tile.Area, w []float32) (values []float32) {
	for i := range a.Rows {
		at := (a.Row+i)*s.Shape()[1] + a.Col
		values = append(values, w[at:at+a.Cols]...)
	}
	return values
}

// unpressArea restores an area.
func unpressArea(s sheet, data [][]byte, a tile.Area, out safetensors.Dtype) []float32 {
	parts := make([][]byte, len(data))
	for i := range parts {
		tiletest.EachRun(s.Needed(i, a), func(from, to int64) { parts[i] = append(parts[i], data[i][from:to]...) })
	}
	w := make([]float32, a.Values())
	s.Decode(w, parts, a, out, new(tile.Scratch))
	return w
}

func surveyed(t *testing.T, s sheet, w []float32) sheet {
	t.Helper()
	c, ok := s.(*W4A8)
	if !ok {
		return s
	}
	c, err := c.Survey(func(start int, dst []float32) error {
		copy(dst, w[start:])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// room is memory for all tensors, full of rubbish.
func room(s sheet) [][]byte {
	var data [][]byte
	for _, tensor := range s.Tensors() {
		n, _ := safetensors.ByteSize(tensor.Dtype, tensor.Shape)
		d := make([]byte, n)
		for i := range d {
			d[i] = 0xA5
		}
		data = append(data, d)
	}
	return data
}

func unpress(s sheet, data [][]byte, out safetensors.Dtype) []byte {
	w := unpressArea(s, data, wholeArea(s), out)
	return golden.Narrowed(w, out)
}

var comfyNames = map[tile.Role]string{
	tile.Weight: "weight", tile.Scale: "weight_scale", tile.Scale2: "weight_scale_2", tile.GroupScale: "weight_s_rel",
	tile.ChannelScale: "weight_s_channel", tile.Codebook: "weight_codebook", tile.Zeros: "weight_zeros",
}

var outs = []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16}

// TestFormatsEqualReferences: codes, scales, their shapes and places, and the
// restored values in three dtypes must be those of comfy-kitchen, or of
// convert_to_quant where it alone has the format.
func TestFormatsEqualReferences(t *testing.T) {
	inputs, compared := golden.Inputs(t), 0
	inputs["matrix"] = golden.Input{Shape: []int{64, 256}, Dtype: safetensors.F32, W: golden.Matrix()}
	for _, f := range golden.Lines(t, "comfy.tsv") {
		in, name := inputs[f[0]], f[1]
		size, _ := strconv.Atoi(f[2])
		compared++
		label := strings.Join(f[:3], " ")
		want := map[string]string{}
		for _, field := range strings.Split(f[3], ",") {
			key, value, _ := strings.Cut(field, "=")
			want[key] = value
		}
		if name == "float8_e4m3fn_rowwise" {
			compareGrouped(t, label, in, want["weight"], want["weight_scale"], f[4:])
			continue
		}
		s, data := press(t, newSheet(t, name, in.Shape, size), in.W)
		if len(s.Tensors()) != len(want) {
			t.Errorf("%s: %d tensors, want %d", label, len(s.Tensors()), len(want))
		}
		for i, tensor := range s.Tensors() {
			if got := golden.Describe(tensor, data[i]); got != want[comfyNames[tensor.Role]] {
				t.Errorf("%s: %s is %s, want %s", label, tensor.Role, got, want[comfyNames[tensor.Role]])
			}
		}
		for i, out := range outs {
			_, want, _ := strings.Cut(f[4+i], "=")
			if sumsDiffer(name, out) {
				continue
			}
			if got := golden.Hash(golden.CanonicalNaN(unpress(s, data, out), out)); got != want {
				t.Errorf("%s: restored in %v %s, want %s", label, out, got, want)
			}
		}
	}
	if compared < 210 {
		t.Errorf("%d compared, want 210 or more", compared)
	}
}

// sumsDiffer: rotating back adds values whose sums are not exact, unless they
// were rounded to 16 bits before.
func sumsDiffer(name string, out safetensors.Dtype) bool {
	return strings.Contains(name, "convrot") || strings.HasPrefix(name, "asym") && out == safetensors.F32
}

func compareGrouped(t *testing.T, label string, in golden.Input, weight, scale string, restores []string) {
	t.Helper()
	shape := in.Shape[:1]
	if shape[0] == 1 {
		shape = nil
	}
	s, err := NewGrouped(in.Shape, E4M3Group, in.Shape[1], shape, false)
	if err != nil {
		t.Fatal(err)
	}
	data := tiletest.Allocate(s, s.Values)
	if err := s.encode(data, tile.ValuesOf(tile.Line(0, len(in.W)), in.W), nil, new(tile.Scratch)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{weight, scale} {
		if got := golden.Describe(s.Tensors()[i], data[i]); got != want {
			t.Errorf("%s: tensor %d is %s, want %s", label, i, got, want)
		}
	}
	for i, out := range outs {
		_, want, _ := strings.Cut(restores[i], "=")
		if got := golden.Hash(golden.CanonicalNaN(restored(s, data, out), out)); got != want {
			t.Errorf("%s: restored in %v %s, want %s", label, out, got, want)
		}
	}
}

// keptRotations are what comfy-kitchen made of values whose sums are not exact.
func keptRotations(t *testing.T) map[string]map[string]keptTensor {
	t.Helper()
	f, err := safetensors.Open(golden.Path(t, "comfy.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cases := map[string]map[string]keptTensor{}
	for _, tensor := range f.Header().Tensors {
		raw := make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		label, key := "inputs", tensor.Name
		if at := strings.LastIndex(tensor.Name, ":"); at > 0 {
			label, key = tensor.Name[:at], tensor.Name[at+1:]
		}
		if cases[label] == nil {
			cases[label] = map[string]keptTensor{}
		}
		cases[label][key] = keptTensor{tensor.Shape, tensor.Dtype, raw}
	}
	return cases
}

type keptTensor struct {
	shape []int
	dtype safetensors.Dtype
	raw   []byte
}

// ulps are the steps between two positive numbers.
func ulps(a, b float32) int {
	d := int(math.Float32bits(a)) - int(math.Float32bits(b))
	return max(d, -d)
}

// TestRotatedEqualReferences: where the order of sums decides, codes may differ
// in one of ten thousand and scales in their last bits; fitted codebooks are
// near the reference's.
func TestRotatedEqualReferences(t *testing.T) {
	inputs, cases := golden.Inputs(t), keptRotations(t)
	for name, k := range cases["inputs"] {
		inputs[name] = golden.Input{Shape: k.shape, Dtype: k.dtype, W: golden.Widen(k.raw, k.dtype)}
	}
	delete(cases, "inputs")
	compareSampled(t, cases)
	if len(cases) < 15 {
		t.Errorf("%d cases, want 15 or more", len(cases))
	}
	for label, want := range cases {
		f := strings.Split(label, ":")
		size, _ := strconv.Atoi(f[2])
		in := inputs[f[0]]
		s, data := press(t, newSheet(t, f[1], in.Shape, size), in.W)
		levels := float64(0)
		if f[1] == "int8_convrot" && in.Shape[0] == 1 { // convert_to_quant makes it a scalar
			w := want["weight_scale"]
			w.shape = []int{}
			want["weight_scale"] = w
		}
		if c, ok := s.(*W4A8); ok && c.Levels != nil {
			levels = compareLevels(t, label, c.Levels, want["weight_codebook"])
		}
		for i, tensor := range s.Tensors() {
			w := want[comfyNames[tensor.Role]]
			if fmt.Sprint(w.shape) != fmt.Sprint(tensor.Shape) {
				t.Errorf("%s: %s has shape %v, want %v", label, tensor.Role, tensor.Shape, w.shape)
				continue
			}
			compareRotated(t, label, tensor, data[i], w.raw, levels > 0)
		}
		if w, ok := want["bf16"]; ok {
			for i, tensor := range s.Tensors() {
				data[i] = want[comfyNames[tensor.Role]].raw
			}
			checkRestored(t, label, s, data, w.raw)
		}
	}
}

// compareSampled fits codebooks to weights of which a sample is drawn.
func compareSampled(t *testing.T, cases map[string]map[string]keptTensor) {
	t.Helper()
	for _, shape := range [][]int{{640, 1024}, {5000, 1024}} {
		label := fmt.Sprintf("%dx%d:formula:4", shape[0], shape[1])
		w := make([]float32, shape[0]*shape[1])
		for i := range w {
			h := uint64(i) * 2654435761 % (1 << 32)
			h = (h ^ h>>15) * 1266822519 % (1 << 32)
			s := float32(int(h/65536)-32768) / 32768
			s2 := s * s
			s4 := s2 * s2
			w[i] = float32(float32(s4*s4)*s4) * s
		}
		s := surveyed(t, newSheet(t, "asym_w4a8_int8", shape, 4), w)
		compareLevels(t, label, s.(*W4A8).Levels, cases[label]["weight_codebook"])
		delete(cases, label)
	}
}

func compareLevels(t *testing.T, label string, got []float32, want keptTensor) (far float64) {
	t.Helper()
	for i := range got {
		w := math.Float32frombits(binary.LittleEndian.Uint32(want.raw[4*i:]))
		far = max(far, math.Abs(float64(got[i]-w)))
	}
	t.Logf("%s: levels differ by %.2g at most", label, far)
	if far > 1e-6 {
		t.Errorf("%s: levels differ by %g: %v", label, far, got)
	}
	return far
}

func compareRotated(t *testing.T, label string, tensor tile.Tensor, got, want []byte, fitted bool) {
	t.Helper()
	if tensor.Role == tile.Codebook {
		return
	}
	if tensor.Dtype != safetensors.F32 {
		n := 0
		for i := range got {
			if got[i] != want[i] {
				n++
			}
		}
		t.Logf("%s: %d of %d bytes of %s differ", label, n, len(got), tensor.Role)
		if limit := max(len(got)/10000, 1); n > limit && !fitted || n > len(got)/500 {
			t.Errorf("%s: %d of %d bytes of %s differ", label, n, len(got), tensor.Role)
		}
		return
	}
	most, n := 0, 0
	for i := 0; i < len(got); i += 4 {
		d := ulps(math.Float32frombits(binary.LittleEndian.Uint32(got[i:])), math.Float32frombits(binary.LittleEndian.Uint32(want[i:])))
		if most = max(most, d); d > 0 {
			n++
		}
	}
	t.Logf("%s: %d of %d %s differ, by %d ulp at most", label, n, len(got)/4, tensor.Role, most)
	if most > 16 && !fitted {
		t.Errorf("%s: %s differs by %d ulp", label, tensor.Role, most)
	}
}

// checkRestored decodes; a value may be rounded to the neighbour.
func checkRestored(t *testing.T, label string, s sheet, data [][]byte, want []byte) {
	t.Helper()
	got := unpress(s, data, safetensors.BF16)
	a, b := golden.Widen(got, safetensors.BF16), golden.Widen(want, safetensors.BF16)
	n := 0
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-7 { // sums of zero leave a rest
			n++
		}
		if math.Abs(float64(a[i]-b[i])) > 0.008*math.Abs(float64(b[i]))+1e-7 {
			t.Fatalf("%s: value %d is restored as %v, want %v", label, i, a[i], b[i])
		}
	}
	t.Logf("%s: %d of %d restored values differ", label, n, len(a))
	if n > len(a)/100 {
		t.Errorf("%s: %d of %d restored values differ", label, n, len(a))
	}
}

// TestRoughKurtosis: the levels of a weight must not follow from how fast its sums
// are taken.
func TestRoughKurtosis(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 2, 3, 16, 1001, 4096} {
		for name, f := range map[string]func() float64{
			"bell":    func() float64 { return r.NormFloat64() / 4 },
			"even":    r.Float64,
			"shifted": func() float64 { return 0.9 + r.Float64()/10 },
			"same":    func() float64 { return 0.7 },
			"zero":    func() float64 { return 0 },
			"NaN":     math.NaN,
		} {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(f())
			}
			rough, exact := roughKurtosis(x), excessKurtosis(x)
			if rough == rough && !(math.Abs(rough-exact) < 1e-7) {
				t.Errorf("%d values, %s: %v, want %v", n, name, rough, exact)
			}
			if want := excessKurtosis(x) > gateKurtosis; heavy(x, nil) != want {
				t.Errorf("%d values, %s: heavy tails %v, want %v", n, name, !want, want)
			}
		}
	}
}
