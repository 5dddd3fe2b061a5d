package quant

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

func parse(t testing.TB, name string) *dtype.Type {
	t.Helper()
	d, err := dtype.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// floats are the values of single-precision patterns.
func floats(patterns ...uint32) []float32 {
	x := make([]float32, len(patterns))
	for i, u := range patterns {
		x[i] = math.Float32frombits(u)
	}
	return x
}

func patterns(x []float32) string {
	var s []string
	for _, v := range x {
		s = append(s, fmt.Sprintf("%08X", math.Float32bits(v)))
	}
	return strings.Join(s, " ")
}

// codesOf are the stored codes of a weight, two's complement for whole words.
func codesOf(q *Quantized) []uint16 {
	codes := make([]uint16, q.Scheme.Values)
	pack.Unpack(codes, q.Data[0], q.Scheme.Bits)
	return codes
}

func valueOf(q *Quantized, tensor, i int) float32 {
	return getFloat(q.Data[tensor], i, q.Scheme.ScaleDtype)
}

// eight are the values of most vectors, about 0.12 -0.07 0.033 -0.25 0 0.199
// -0.101 0.0625.
var eight = floats(0x3DF5C28F, 0xBD8F5C29, 0x3D072B02, 0xBE800000, 0, 0x3E4BC6A8, 0xBDCED917, 0x3D800000)

// TestVectorsBySDNQ: a weight of eight values, to the bit.
func TestVectorsBySDNQ(t *testing.T) {
	for _, c := range []struct {
		dtype       string
		scale, zero uint32
		codes       []uint16
		bytes, back string
	}{
		{
			"int8", 0x3B010204, 0, []uint16{61, 0x100 - 36, 17, 0x100 - 127, 0, 101, 0x100 - 51, 32}, "3ddc11810065cd20",
			"3DF5EBD8 BD912244 3D091224 BE800000 00000000 3E4B972E BDCD9B36 3D810204",
		},
		{
			"int4", 0x3D124925, 0, []uint16{11, 6, 9, 1, 8, 14, 5, 10}, "6b19e8a5",
			"3DDB6DB8 BD924925 3D124925 BE800000 00000000 3E5B6DB8 BDDB6DB8 3D924925",
		},
		{
			"uint4", 0x3CF536C0, 0xBE800000, []uint16{12, 6, 9, 0, 8, 15, 5, 10}, "6c09f8a5",
			"3DDFA440 BD902DE0 3C9EECC0 BE800000 BC2C9400 3E4BC6A8 BDCD7B90 3D4A11C0",
		},
		{
			"float4_e2m1fn", 0x3D2AAAAB, 0, []uint16{5, 11, 2, 15, 0, 6, 12, 3}, "b5f2603c",
			"3E000000 BD800000 3D2AAAAB BE800000 00000000 3E2AAAAB BDAAAAAB 3D800000",
		},
	} {
		q, err := Quantize(eight, []int{1, 8}, Options{Dtype: parse(t, c.dtype), GroupSize: -1, ScaleDtype: safetensors.F32})
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Float32bits(valueOf(q, 1, 0)); got != c.scale {
			t.Errorf("%s: scale %x, want %x", c.dtype, got, c.scale)
		}
		if q.Scheme.Dtype.Unsigned && math.Float32bits(valueOf(q, 2, 0)) != c.zero {
			t.Errorf("%s: zero point %v, want %x", c.dtype, valueOf(q, 2, 0), c.zero)
		}
		if got := codesOf(q); fmt.Sprint(got) != fmt.Sprint(c.codes) || hex.EncodeToString(q.Data[0]) != c.bytes {
			t.Errorf("%s: codes %d in bytes %x, want %d, %s", c.dtype, got, q.Data[0], c.codes, c.bytes)
		}
		back, err := Dequantize(q)
		if err != nil || patterns(back) != c.back {
			t.Errorf("%s: restored %s, %v, want %s", c.dtype, patterns(back), err, c.back)
		}
	}
}

// TestUint9KeepsItsMaximum: the eight values twice, since sixteen make a block.
// In sdnq the maximum is lost and changes another value; by default it is not.
func TestUint9KeepsItsMaximum(t *testing.T) {
	want := []uint16{422, 205, 323, 0, 285, 511, 170, 356, 422, 205, 323, 0, 285, 511, 170, 356}
	for _, exact := range []bool{false, true} {
		q, err := Quantize(append(eight[:8:8], eight...), []int{1, 16}, Options{Dtype: parse(t, "uint9"), ScaleDtype: safetensors.F32, ExactReference: exact})
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Float32bits(valueOf(q, 1, 0)); got != 0x3A65E354 {
			t.Errorf("scale %x, want 3a65e354", got)
		}
		if exact {
			want[5], want[13] = 0, 1 // lost, with bit 9 of the first in the second
		}
		if got := codesOf(q); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("exact %v: codes %d, want %d", exact, got, want)
		}
	}
}

// TestFloatVectorsBySDNQ: values to stored words and back.
func TestFloatVectorsBySDNQ(t *testing.T) {
	for _, c := range []struct {
		dtype  string
		values []float32
		bytes  []byte
		back   []float32
	}{
		{"float4_e2m1fn", []float32{0, -0.3, 0.64, 0.65, 1.28125, -1.78, 5.125, -6}, []byte{144, 33, 179, 247}, []float32{0, -0.5, 0.5, 1, 1.5, -1.5, 6, -6}},
		{"float6_e3m2fn", []float32{28, -0.05, 1.14, 0}, []byte{31, 33, 12}, []float32{28, -0.0625, 1, 0}},
		{"float8_e4m3fn_sdnq", []float32{1, -0.1, 480, 0.001}, []byte{56, 157, 127, 1}, []float32{1, -0.1015625, 480, 0.001953125}},
		{"float9_e4m4fn", append([]float32{496, -1, 0.5, 0.1}, make([]float32, 12)...), []byte{255, 0, 112, 1, 96, 0, 58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, append([]float32{496, -1, 0.5, 0.1015625}, make([]float32, 12)...)},
		{"float16_e5m10fn", []float32{1, -131008, 1e-5, 3.14159}, []byte{0, 60, 255, 255, 168, 0, 72, 66}, []float32{1, -131008, 1.0013580e-5, 3.140625}},
	} {
		d := parse(t, c.dtype)
		n := newNumbers(d, true)
		codes, dst, back := make([]uint16, len(c.values)), make([]byte, len(c.bytes)), make([]float32, len(c.values))
		n.encode(codes, c.values)
		pack.Pack(dst, codes, d.Bits)
		pack.Unpack(codes, dst, d.Bits)
		n.decode(back, codes)
		if string(dst) != string(c.bytes) || fmt.Sprint(back) != fmt.Sprint(c.back) {
			t.Errorf("%s: %d, restored %v, want %d, %v", c.dtype, dst, back, c.bytes, c.back)
		}
	}
}

// matrix is 64 rows of 256 values, exact in bfloat16, with zeros.
func matrix() []float32 {
	a := make([]float32, 64*256)
	for i := range 64 {
		for j := range 256 {
			if i == 3 || i == 7 && j >= 16 && j < 32 || i == 8 && j >= 32 && j < 64 {
				continue
			}
			a[256*i+j] = float32(math.Ldexp(float64((37*i+101*j+13*i*j)%257-128)/64, -(i % 5)))
		}
	}
	return a
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// scaled stores a weight by a rule.
func scaled(t *testing.T, w []float32, shape []int, rule *Rule, perRow bool) (*Scaled, [][]byte) {
	t.Helper()
	s, err := NewScaled(shape, rule, perRow, false)
	if err != nil {
		t.Fatal(err)
	}
	data := allocate(s, s.Values)
	if err := encodeRun(s, data, 0, w, nil, new(Scratch)); err != nil {
		t.Fatal(err)
	}
	return s, data
}

func allocate(l layout, values int) [][]byte {
	var data [][]byte
	for i := range l.Tensors() {
		data = append(data, make([]byte, SpanBytes(l.Written(i, Line(0, values)))))
	}
	return data
}

// TestVectorsOfComfyUI: weights for ComfyUI would not be those of ctq and
// comfy-kitchen.
func TestVectorsOfComfyUI(t *testing.T) {
	a := matrix()
	raw := make([]byte, 4*len(a))
	kernel.NarrowF32(raw, a)
	if got := sha(raw); got != "468dc2097fa75f665e4dddd38054be6dc4cb6959c9cd9a4e9f5366cba5f4b510" {
		t.Fatalf("the matrix itself is %s", got)
	}
	for name, c := range map[string]struct {
		rule          *Rule
		row           bool
		shape         string
		first, scales string // bytes of the weight, patterns of scales
		weight, scale string // SHA-256
	}{
		"fp8 tensor": {
			E4M3Tensor, false, "[]", "feec78f9687df076", "3B924925",
			"491b818c42fdcfa877d759774d1c9f2cf1f743b503e37e72c045a374aea0add1", "e4f9218b86dcc43289a11844baa52253b4a3db4d0463d6505167feccb2dae3a3",
		},
		"int8 tensor": {
			Int8Tensor, false, "[]", "81e549af1377dc40", "3C810204",
			"47d2a43376476c424b6ddb50877e0f19e3ee3474cccb9f115b88b4d139d81ba6", "bc39d49810d1887da512941344cc90ef74c52878d8d5a3cfed82d8247788b6e0",
		},
		"int8 row": {
			Int8Row, true, "[64 1]", "81e549af1377dc40", "3C810204 3C010204 3B810204 280DD87D 3A810204",
			"091800b55555427fc910a48c97684dd684b5c4524cd5903a84868f53f2f90ae2", "aaf6ca29bf5ab106feaf33949b2bebb6cde94c8968a60a58184bac91e0a96370",
		},
		"e5m2 tensor": {
			E5M2Tensor, false, "[]", "", "38124925",
			"e5c3429674cb944e0bb282ab2127ebf13c787104ad99011c5bd6c9e0bfe061ab", "",
		},
	} {
		s, data := scaled(t, a, []int{64, 256}, c.rule, c.row)
		first := make([]float32, len(strings.Fields(c.scales)))
		kernel.WidenF32(first, data[1])
		if got := patterns(first); got != c.scales || fmt.Sprint(s.Tensors()[1].Shape) != c.shape {
			t.Errorf("%s: scales %v %s, want %s %s", name, s.Tensors()[1].Shape, got, c.shape, c.scales)
		}
		if !strings.HasPrefix(hex.EncodeToString(data[0]), c.first) || sha(data[0]) != c.weight {
			t.Errorf("%s: weight %x… is %s, want %s", name, data[0][:8], sha(data[0]), c.weight)
		}
		if c.scale != "" && sha(data[1]) != c.scale {
			t.Errorf("%s: scale is %s, want %s", name, sha(data[1]), c.scale)
		}
	}
}

var rules = map[string]struct {
	rule *Rule
	row  bool
}{
	"float8_e4m3fn": {E4M3Tensor, false}, "float8_e5m2": {E5M2Tensor, false},
	"int8_tensor": {Int8Tensor, false}, "int8_row": {Int8Row, true},
}

// TestKeptFilesOfConvertToQuant compares the weights in its whole outputs; the
// restored values are those of comfy-kitchen.
func TestKeptFilesOfConvertToQuant(t *testing.T) {
	golden, err := os.ReadFile("../testdata/golden/kitchen.tsv")
	if err != nil {
		t.Fatal(err)
	}
	inputs, compared := readInputs(t), 0
	for lines := bufio.NewScanner(strings.NewReader(string(golden))); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		f := strings.Split(lines.Text(), "\t")
		rule := rules[f[1]]
		file, layer, kept := strings.Cut(f[0], ":")
		in := inputs[f[0]]
		if kept {
			source, _, _ := strings.Cut(file, ".")
			in = readTensor(t, source+".src", layer+".weight")
		} else if f[1] != "float8_e5m2" {
			continue // ctq's arithmetic is followed there
		}
		if underflows := rule.rule == E5M2Tensor && factorOverflows(in.w); underflows {
			continue
		}
		compared++
		s, data := scaled(t, in.w, in.shape, rule.rule, rule.row)
		for i, role := range []string{"weight=", "scale="} {
			if got := role + describe(s.Tensors()[i], data[i]); got != f[2+i] {
				t.Errorf("%s %s: %s, want %s", f[0], f[1], got, f[2+i])
			}
		}
		for i, out := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
			_, want, _ := strings.Cut(f[4+i], "=")
			if got := hash(canonicalNaN(restored(s, data, out), out)); got != want {
				t.Errorf("%s %s: restored in %v %s, want %s", f[0], f[1], out, got, want)
			}
		}
	}
	if compared < 35 {
		t.Errorf("%d weights compared, want 35 or more", compared)
	}
}

func factorOverflows(w []float32) bool {
	lo, hi := kernel.MinMax(w)
	return math.IsInf(float64(1/(max(-lo, hi)/57344)), 0)
}

func readTensor(t *testing.T, file, name string) input {
	t.Helper()
	f, err := safetensors.Open("../testdata/golden/" + file + ".safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tensor, ok := f.Header().Lookup(name)
	if !ok {
		t.Fatalf("%s has no %s", file, name)
	}
	raw := make([]byte, tensor.Size)
	if err := f.ReadSection(tensor, raw, 0); err != nil {
		t.Fatal(err)
	}
	return input{tensor.Shape, tensor.Dtype, widen(raw, tensor.Dtype)}
}

// restored are the bytes of the decoded weight in a dtype.
func restored(s *Scaled, data [][]byte, out safetensors.Dtype) []byte {
	w := make([]float32, s.Values)
	s.Decode(w, data, Line(0, len(w)), out, new(Scratch))
	return narrowed(w, out)
}

// TestZeroWeightsOfComfyUI: an empty layer would become NaN.
func TestZeroWeightsOfComfyUI(t *testing.T) {
	for name, c := range map[string]uint32{
		"float8_e4m3fn": 0x3F800000, "float8_e5m2": 0x3F800000, "int8_row": 0x280DD87D,
		"int8_tensor": math.Float32bits(float32(1e-12) / 127),
	} {
		s, data := scaled(t, make([]float32, 32), []int{1, 32}, rules[name].rule, rules[name].row)
		if got := binary.LittleEndian.Uint32(data[1]); sha(data[0]) != sha(make([]byte, 32)) || got != c || len(s.Tensors()[1].Shape) != 0 {
			t.Errorf("%s: codes %x, scale %x of shape %v, want zeros, %x", name, data[0], got, s.Tensors()[1].Shape, c)
		}
	}
}
