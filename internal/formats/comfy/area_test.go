package comfy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// sheets are the formats that are cut into areas, and shapes for each that end
// inside tiles, bands and blocks.
var sheets = []struct {
	name   string
	size   int
	shapes [][]int
}{
	{"mxfp8", 0, [][]int{{300, 330}, {33, 65}, {1, 31}, {129, 128}, {40, 1}}},
	{"nvfp4", 0, [][]int{{300, 330}, {33, 65}, {1, 15}, {129, 64}, {40, 1}}},
	{"float8_e4m3fn_blockwise", 8, [][]int{{24, 40}, {8, 8}}},
	{"int8_blockwise", 5, [][]int{{25, 40}, {5, 5}}},
	{"awq_w4a16", 16, [][]int{{300, 64}, {7, 128}, {1, 16}}},
	{"int8_convrot", 16, [][]int{{30, 64}, {1, 128}}},
	{"convrot_w4a4", 16, [][]int{{30, 64}, {1, 128}}},
	{"asym_w4a8_int8", 64, [][]int{{30, 192}, {1, 64}}},
	{"asym_w4a8_int8_6", 64, [][]int{{30, 192}, {1, 64}}},
}

// TestAreasDoNotChangeBytes: a file would depend on memory and threads.
func TestAreasDoNotChangeBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	for _, c := range sheets {
		for _, shape := range c.shapes {
			w := tiletest.Sample(r, shape[0]*shape[1])
			s, whole := press(t, newSheet(t, c.name, shape, c.size), w)
			label := fmt.Sprint(c.name, shape)
			seen := map[[2]int]bool{}
			for _, want := range []int{1, 50, 1000, 1 << 20} {
				for _, limit := range []int{1, 200, 20000, 1 << 30} {
					rows, cols, measured := s.Cut().Tile(want, limit)
					seen[[2]int{rows, cols}] = true
					if got := pressTiles(t, s, w, rows, cols, measured); !golden.EqualData(got, whole) {
						t.Errorf("%s: tiles of %d×%d, measured %v, give other bytes", label, rows, cols, measured)
					}
				}
				compareDecoded(t, label, s, whole, want)
			}
			if len(seen) < 2 && shape[0]*shape[1] > 20000 {
				t.Errorf("%s: tiles of one shape alone: %v", label, seen)
			}
		}
	}
}

// pressTiles stores a weight as the engine does.
func pressTiles(t *testing.T, s sheet, w []float32, rows, cols int, measured bool) [][]byte {
	t.Helper()
	data := room(s)
	var ranges []tile.Range
	if measured {
		ranges = s.Cut().Unmeasured()
		for _, a := range s.Cut().Areas(rows, cols) {
			found, err := encoderOf(s).Range(tile.ValuesOf(a, areaOf(s, a, w)), new(tile.Scratch))
			if err != nil {
				t.Fatal(err)
			}
			s.Cut().Join(ranges, a, found)
		}
	}
	n := 0
	for i, a := range s.Cut().Areas(rows, cols) {
		pressArea(t, s, data, a, w, ranges)
		if n++; i != n-1 {
			t.Fatalf("area %d is numbered %d", n-1, i)
		}
	}
	if got := s.Cut().Count(rows, cols); got != n {
		t.Fatalf("%d areas, counted %d", n, got)
	}
	return data
}

func compareDecoded(t *testing.T, label string, s sheet, data [][]byte, want int) {
	t.Helper()
	rows, cols := s.Cut().DecodeTile(want)
	for _, out := range outs {
		all := unpressArea(s, data, wholeArea(s), out)
		for _, a := range s.Cut().Areas(rows, cols) {
			got, whole := unpressArea(s, data, a, out), areaOf(s, a, all)
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(whole[i]) {
					t.Fatalf("%s: area %v of %v restores %v as %v", label, a, out, whole[i], got[i])
				}
			}
		}
	}
}

// TestTilesStayInMemory: tiles must be near what is wanted and never above the
// limit, but for a single unit.
func TestTilesStayInMemory(t *testing.T) {
	for _, c := range sheets {
		for _, shape := range [][]int{{8000, 16000}, {1000000, 320}, {320, 1000000}} {
			cut := newSheet(t, c.name, shape, c.size).Cut()
			unit := min(cut.UnitRows, cut.Rows) * min(cut.UnitCols, cut.Cols)
			for _, limit := range []int{1 << 13, 1 << 17, 1 << 21} {
				rows, cols, _ := cut.Tile(1<<17, limit)
				if n := rows * cols; n > max(unit, limit, 1<<17) || n < min(1<<14, shape[0]*shape[1]) {
					t.Errorf("%s %v: tiles of %d×%d for a limit of %d", c.name, shape, rows, cols, limit)
				}
			}
		}
	}
}

// TestFormatsRefuseNonfinite: a layer would become NaN, and the user could not
// find the value.
func TestFormatsRefuseNonfinite(t *testing.T) {
	for _, c := range sheets {
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			shape := c.shapes[0]
			s := newSheet(t, c.name, shape, c.size)
			w := make([]float32, shape[0]*shape[1])
			at := len(w)/2 + 3
			w[at], w[len(w)-1] = float32(bad), float32(bad)
			var n *tile.NonfiniteError
			err := encoderOf(s).Fill(room(s), tile.ValuesOf(wholeArea(s), w), nil, new(tile.Scratch))
			if !errors.As(err, &n) || n.Index != at {
				t.Errorf("%s: %v at %d: error %v", c.name, bad, at, err)
			}
		}
	}
}

// TestZeroWeightsLoad: zeros of either sign must come back as zeros, with
// scales that are finite.
func TestZeroWeightsLoad(t *testing.T) {
	for _, c := range sheets {
		for _, shape := range c.shapes {
			w := make([]float32, shape[0]*shape[1])
			for i := range w {
				w[i] = float32(math.Copysign(0, float64(i%3)-1))
			}
			s, data := press(t, newSheet(t, c.name, shape, c.size), w)
			for i, v := range unpressArea(s, data, wholeArea(s), safetensors.F32) {
				if floats.Abs(v) > 1e-7 || v != v {
					t.Fatalf("%s %v: value %d is restored as %v", c.name, shape, i, v)
				}
			}
		}
	}
}

// TestSmallestBlocksOfMXFP8: their scale decodes to zero. The reference makes
// NaN of their zeros.
func TestSmallestBlocksOfMXFP8(t *testing.T) {
	w := make([]float32, 32)
	w[1], w[2] = 0x1p-140, -0x1p-140
	for exact, want := range map[bool]string{false: "000000", true: "ff7efe"} {
		s, err := NewMXFP8([]int{1, 32}, BlockOptions{ExactReference: exact})
		if err != nil {
			t.Fatal(err)
		}
		_, data := press(t, s, w)
		if got := hex.EncodeToString(data[0][:3]); got != want || data[1][0] != 0 {
			t.Errorf("exact %v: codes %s, scale %d, want %s, 0", exact, got, data[1][0], want)
		}
	}
}

// TestScaleExponents: the logarithm is rounded to single precision, which
// decides just above powers of two.
func TestScaleExponents(t *testing.T) {
	for e := -126; e < 119; e++ {
		power := math.Float32bits(float32(math.Ldexp(448, e)))
		for _, d := range []uint32{0, 1, 2, 5, 40, 1 << 10} {
			amax := math.Float32frombits(power + d)
			want := math.Ceil(float64(float32(math.Log2(float64(amax / 448)))))
			if got := scaleExponent(amax); float64(got)-127 != want {
				t.Errorf("448·2^%d and %d ulp: exponent %d, want %v", e, d, int(got)-127, want)
			}
		}
	}
}

// TestVectorsOfBlockFormats: the vectors that the formats are described with.
func TestVectorsOfBlockFormats(t *testing.T) {
	a := golden.Matrix()
	var b []float32
	for i := range 20 {
		b = append(b, a[256*i:256*i+40]...)
	}
	ctq, err := NewRotated([]int{64, 256}, 256, Int8RotatedRow, false)
	if err != nil {
		t.Fatal(err)
	}
	small, err := NewRotated([]int{64, 256}, 64, Int8RotatedRow, false)
	if err != nil {
		t.Fatal(err)
	}
	whole, part := []int{64, 256}, []int{20, 40}
	for _, c := range []struct {
		label         string
		s             sheet
		w             []float32
		first, scales string // bytes
		weight, scale string // SHA-256
	}{
		{"fp8 block 32", newSheet(t, "float8_e4m3fn_blockwise", whole, 32), a, "feec78f9687df076", "2549923b",
			"9251eefd0ac60a90d237e0f164b4cb6f0e5d095e4ad15f602769eed9ac1edac2", "477b6f6ff9f71e6ea1de841029e30e28799d4e39d56c69a7df12c060d58e1f8d"},
		{"int8 block 32", newSheet(t, "int8_blockwise", whole, 32), a, "81e549af1377dc40", "0402813c",
			"eb2502c163119b04a4a5bf1d68628e937310fa915bc8e7f83e4431d0a7d840c9", "e0b71f7dbb66964daae0f70e484c707b5a9076942b37f63c670a56ddbd880901"},
		{"convrot 256, ctq", ctq, a, "003717e51cc7ca00", "f3f9ec3c",
			"3d9e6561b48e7270c878fd83de7c7786ed103bea742f1af55836eff04e29b2a0", "3555837be1def127aeab481250065a49903d8a1fb1b9f9e07c3253cef60dbb08"},
		{"convrot 64, ctq", small, a, "142bf231f8bfd614", "7bbdce3c",
			"5893cbfcdcd5120360f82d857c42dece24ae326be5aa35cd7a4e5b569a556cbf", "4c09cce19dfe03b7e44f27e8a0bccb3e0c4456ff6ef498e824a681d8ad37f734"},
		{"convrot 256", newSheet(t, "int8_convrot", whole, 256), a, "", "f4f9ec3c",
			"33ca3119ab272c34977d1b45b64f0d9a9ea983cd76e6d1ca39ea181cec591577", "a02b63e75f39f72e2d19a6b01c8ca18d598ac0988310c6a0a9eb7634caa0ccb4"},
		{"convrot 64", newSheet(t, "int8_convrot", whole, 64), a, "", "7bbdce3c",
			"2b2e666e4a331903b423f4a98e747b71dc33182b3cb00ce2c82417b13e4a03be", "0ae838390c93b28574ce6520ff0298dc63be29d2bdc37783c41607f5904063c8"},
		{"w4a4", newSheet(t, "convrot_w4a4", whole, 256), a, "30f1d20d4d2dc1f0", "6e5b063f",
			"4ba8dad034031c212f9ae39c7d91b32979aabb5e9189e091e7ebc427f959f912", "d8c03701f4ed1be57b3825fd46587694d026a9ed2fc196074c6f8411051998de"},
		{"w4a8", newSheet(t, "asym_w4a8_int8", whole, 256), a, "e84a1b81f2b10968", "",
			"e9c35020374838fd6019bab02a908871355009a76d026bafe5f53b03642b360f", "ae37f07a21c9c16694c79ff3ba9d115129dac78bee38a0614f5e5ceec453aeb5"},
		{"w6a8", newSheet(t, "asym_w4a8_int8_6", whole, 256), a, "60599b0aecb735a0", "",
			"3c5b31a827f7c223a34622239e37726104d43127f0d86b23b9bb6b223cd9f484", "03669d558078a3fc960015337273b41f45872cd6729439ad88a08b248fea8f7b"},
		{"mxfp8", newSheet(t, "mxfp8", whole, 0), a, "f8e671f26277e970", "7878787876767476",
			"324923b65da5c74a590e04d59b8d030cfe7de102629fb6ad82ae499a7e77bdc6", "979c08d4090200d51083a0e0794a1f0ebacfced3985c33fa78e6901aa1f2b800"},
		{"nvfp4", newSheet(t, "nvfp4", whole, 0), a, "fb5e27b5e17c5e06", "7e7e7d7e686d6e69",
			"8868479d95884af8e49483b80228d368b2daea982b61b3f6481088f1f4e7981f", "d9cc882466f7858ef3d6088a3661a815f5c0874d4fe1f46570ab4b744d0bcc9b"},
		{"mxfp8, padded", newSheet(t, "mxfp8", part, 0), b, "f8e671f26277e970", "78780000",
			"4d8a981d49c9c35693e5c869dcaa69b9cce6658b927147f1cc662ea839b6d52e", "f1c895a36f6736f2fd89a282403a691718fc7d566e00d8e30ed64cecc7a6aff9"},
		{"nvfp4, padded", newSheet(t, "nvfp4", part, 0), b, "fb5e27b5e17c5e06", "7e7e7d00",
			"190d76f37d46b94f50e3eb39743079ff0dc38093d413b6e543df798555622a94", "9c2e92e8ecb394f916377396baea293808d4d353e091bff44e385f012e88349d"},
	} {
		_, data := press(t, c.s, c.w)
		for i, want := range []struct{ first, sha string }{{c.first, c.weight}, {c.scales, c.scale}} {
			got := hex.EncodeToString(data[i])
			if !strings.HasPrefix(got, want.first) || golden.Sha(data[i]) != want.sha {
				t.Errorf("%s: tensor %d is %s, %s…, want %s, %s…", c.label, i, golden.Sha(data[i]), got[:16], want.sha, want.first)
			}
		}
	}
}

// TestConvRotation: its own inverse, and the matrix of its definition.
func TestConvRotation(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{4, 16, 64, 256, 1024} {
		x := tiletest.Sample(r, 2*n)
		y := append([]float32(nil), x...)
		rotation.RotateOnce(y, n)
		for _, i := range []int{0, 1, n / 2, n - 1} {
			var want float64
			for j := range n {
				want += sign(i, j) * float64(x[n+j]) / math.Sqrt(float64(n))
			}
			if math.Abs(want-float64(y[n+i])) > 1e-6 {
				t.Errorf("group %d: value %d is %v, want %v", n, i, y[n+i], want)
			}
		}
		rotation.RotateOnce(y, n)
		for i := range x {
			if math.Abs(float64(x[i]-y[i])) > 1e-6 {
				t.Fatalf("group %d: value %d comes back as %v, was %v", n, i, y[i], x[i])
			}
		}
	}
	for group, fits := range map[int]bool{4: true, 16: true, 256: true, 1 << 24: true, 0: false, 1: false, 2: false, 8: false, 40: false, 512: false, -4: false} {
		if err := rotation.CheckConvRot(0, group); (err == nil) != fits {
			t.Errorf("group %d: error %v", group, err)
		}
	}
}

// sign is minus for every digit to base 4 in which i and j add up to 3.
func sign(i, j int) float64 {
	s := 1.0
	for x := i ^ j; x > 0; x >>= 2 {
		if x&3 == 3 {
			s = -s
		}
	}
	return s
}

// TestAWQCodesAreSDNQs: the packed bytes can be taken from one to the other.
func TestAWQCodesAreSDNQs(t *testing.T) {
	w := tiletest.Sample(rand.New(rand.NewPCG(7, 7)), 64*256)
	s, err := sdnq.NewScheme([]int{64, 256}, sdnq.Options{Dtype: golden.Dtype(t, "uint4"), GroupSize: 64, ScaleDtype: safetensors.F32})
	if err != nil {
		t.Fatal(err)
	}
	want := tiletest.Allocate(s, s.Values)
	if err := tile.EncodeAll(s.NewEncoder(safetensors.F32, 1<<20), s.Cut(), s.Written, tile.ValuesOf(tile.Line(0, len(w)), w), want, new(tile.Scratch)); err != nil {
		t.Fatal(err)
	}
	_, data := press(t, newSheet(t, "awq_w4a16", []int{64, 256}, 64), w)
	if !bytes.Equal(want[0], data[0]) {
		t.Error("codes differ")
	}
}

// TestE2M1: every value and every tie.
func TestE2M1(t *testing.T) {
	for x, want := range map[float32]uint16{
		0: 0, 0.25: 0, 0.26: 1, 0.5: 1, 0.75: 2, 1: 2, 1.25: 2, 1.3: 3, 1.5: 3, 1.75: 4, 2: 4, 2.5: 4, 2.6: 5, 3: 5, 3.5: 6, 4: 6, 5: 6, 5.1: 7, 6: 7,
	} {
		if got := kernel.E2M1.Encode(x); got != want {
			t.Errorf("%v is %d, want %d", x, got, want)
		}
		if got := kernel.E2M1.Encode(-x); x != 0 && got != want|8 {
			t.Errorf("%v is %d, want %d", -x, got, want|8)
		}
	}
	if got := kernel.E2M1.Encode(float32(math.Copysign(0, -1))); got != 8 {
		t.Errorf("-0 is %d, want 8", got)
	}
	for code, want := range []float32{0, 0.5, 1, 1.5, 2, 3, 4, 6} {
		if got := kernel.E2M1.Decode(uint16(code) | 8); got != -want {
			t.Errorf("code %d is %v, want %v", code|8, got, -want)
		}
	}
}

// TestAllowedNonfinite: blocks with NaN or infinity are those of comfy-kitchen
// in mxfp8; in nvfp4 one spoils the tensor, as there.
func TestAllowedNonfinite(t *testing.T) {
	in := golden.Inputs(t)["nonfinite.f32"]
	o := BlockOptions{ExactReference: true, AllowNonfinite: true}
	m, err := NewMXFP8(in.Shape, o)
	if err != nil {
		t.Fatal(err)
	}
	_, data := press(t, m, in.W)
	for i, want := range []string{"F8_E4M3:32x128:7c0bc56b854dcdc2", "U8:128x4:0b767b5e537ac8d0"} {
		if got := golden.Describe(m.Tensors()[i], data[i]); got != want {
			t.Errorf("mxfp8: %s, want %s", got, want)
		}
	}
	n, err := NewNVFP4(in.Shape, o)
	if err != nil {
		t.Fatal(err)
	}
	_, data = press(t, n, in.W)
	if data[0][0] != 0x33 || data[1][0] != 0x7F {
		t.Errorf("nvfp4: codes %x, scale %x", data[0][0], data[1][0])
	}
}
