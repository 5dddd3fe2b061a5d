package comfy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// scaled stores a weight by a rule.
func scaled(t *testing.T, w []float32, shape []int, rule *ScaleRule, perRow bool) (*Scaled, [][]byte) {
	t.Helper()
	s, err := NewScaled(shape, rule, perRow, false)
	if err != nil {
		t.Fatal(err)
	}
	data := tiletest.Allocate(s, s.Values)
	if err := s.encode(data, tile.ValuesOf(tile.Line(0, len(w)), w), nil, new(tile.Scratch)); err != nil {
		t.Fatal(err)
	}
	return s, data
}

// TestVectorsOfComfyUI: weights for ComfyUI would not be those of ctq and
// comfy-kitchen.
func TestVectorsOfComfyUI(t *testing.T) {
	a := golden.Matrix()
	raw := make([]byte, 4*len(a))
	kernel.NarrowF32(raw, a)
	if got := golden.Sha(raw); got != "468dc2097fa75f665e4dddd38054be6dc4cb6959c9cd9a4e9f5366cba5f4b510" {
		t.Fatalf("the matrix itself is %s", got)
	}
	for name, c := range map[string]struct {
		rule          *ScaleRule
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
		if got := golden.Patterns(first); got != c.scales || fmt.Sprint(s.Tensors()[1].Shape) != c.shape {
			t.Errorf("%s: scales %v %s, want %s %s", name, s.Tensors()[1].Shape, got, c.shape, c.scales)
		}
		if !strings.HasPrefix(hex.EncodeToString(data[0]), c.first) || golden.Sha(data[0]) != c.weight {
			t.Errorf("%s: weight %x… is %s, want %s", name, data[0][:8], golden.Sha(data[0]), c.weight)
		}
		if c.scale != "" && golden.Sha(data[1]) != c.scale {
			t.Errorf("%s: scale is %s, want %s", name, golden.Sha(data[1]), c.scale)
		}
	}
}

var rules = map[string]struct {
	rule *ScaleRule
	row  bool
}{
	"float8_e4m3fn": {E4M3Tensor, false}, "float8_e5m2": {E5M2Tensor, false},
	"int8_tensor": {Int8Tensor, false}, "int8_row": {Int8Row, true},
}

// TestKeptFilesOfConvertToQuant compares the weights in its whole outputs; the
// restored values are those of comfy-kitchen.
func TestKeptFilesOfConvertToQuant(t *testing.T) {
	kept, err := os.ReadFile(golden.Path(t, "kitchen.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	inputs, compared := golden.Inputs(t), 0
	for lines := bufio.NewScanner(strings.NewReader(string(kept))); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		f := strings.Split(lines.Text(), "\t")
		rule := rules[f[1]]
		file, layer, kept := strings.Cut(f[0], ":")
		in := inputs[f[0]]
		if kept {
			source, _, _ := strings.Cut(file, ".")
			in = golden.Tensor(t, source+".src", layer+".weight")
		} else if f[1] != "float8_e5m2" {
			continue // ctq's arithmetic is followed there
		}
		if underflows := rule.rule == E5M2Tensor && factorOverflows(in.W); underflows {
			continue
		}
		compared++
		s, data := scaled(t, in.W, in.Shape, rule.rule, rule.row)
		for i, role := range []string{"weight=", "scale="} {
			if got := role + golden.Describe(s.Tensors()[i], data[i]); got != f[2+i] {
				t.Errorf("%s %s: %s, want %s", f[0], f[1], got, f[2+i])
			}
		}
		for i, out := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
			_, want, _ := strings.Cut(f[4+i], "=")
			if got := golden.Hash(golden.CanonicalNaN(restored(s, data, out), out)); got != want {
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

// restored are the bytes of the decoded weight in a dtype.
func restored(s *Scaled, data [][]byte, out safetensors.Dtype) []byte {
	w := make([]float32, s.Values)
	s.Decode(w, data, tile.Line(0, len(w)), out, new(tile.Scratch))
	return golden.Narrowed(w, out)
}

// TestZeroWeightsOfComfyUI: an empty layer would become NaN.
func TestZeroWeightsOfComfyUI(t *testing.T) {
	for name, c := range map[string]uint32{
		"float8_e4m3fn": 0x3F800000, "float8_e5m2": 0x3F800000, "int8_row": 0x280DD87D,
		"int8_tensor": math.Float32bits(float32(1e-12) / 127),
	} {
		s, data := scaled(t, make([]float32, 32), []int{1, 32}, rules[name].rule, rules[name].row)
		if got := binary.LittleEndian.Uint32(data[1]); golden.Sha(data[0]) != golden.Sha(make([]byte, 32)) || got != c || len(s.Tensors()[1].Shape) != 0 {
			t.Errorf("%s: codes %x, scale %x of shape %v, want zeros, %x", name, data[0], got, s.Tensors()[1].Shape, c)
		}
	}
}
