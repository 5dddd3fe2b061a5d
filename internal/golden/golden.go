// Package golden reads, for tests of the arithmetic, what the references made of weights.
package golden

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// smallRows are the rows of an input whose sums do not overflow: with infinite
// levels the reference's search has no defined result.
func BytesOf(x []float32) []byte {
	b := make([]byte, 4*len(x))
	floats.PutFloats(b, x, safetensors.F32)
	return b
}

// Input is a weight that the references quantized.
type Input struct {
	Shape []int
	Dtype safetensors.Dtype
	W     []float32
}

// Inputs are the weights of testdata/golden/inputs.safetensors by name.
func Inputs(t *testing.T) map[string]Input {
	t.Helper()
	return InputFile(t, "inputs")
}

// Path is where a file of testdata/golden lies, wherever a test runs.
func Path(t testing.TB, name string) string {
	t.Helper()
	for up := "."; ; up = filepath.Join(up, "..") {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			return filepath.Join(up, "testdata", "golden", name)
		}
		if here, err := filepath.Abs(up); err != nil || here == filepath.Dir(here) {
			t.Fatalf("%s: there is no go.mod above", name)
		}
	}
}

// InputFile are the tensors of a file of testdata/golden by name.
func InputFile(t *testing.T, name string) map[string]Input {
	t.Helper()
	f, err := safetensors.Open(Path(t, name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inputs := map[string]Input{}
	for _, tensor := range f.Header().Tensors {
		raw := make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		inputs[tensor.Name] = Input{tensor.Shape, tensor.Dtype, Widen(raw, tensor.Dtype)}
	}
	return inputs
}

// Widen are little-endian values of a float dtype.
func Widen(raw []byte, d safetensors.Dtype) []float32 {
	return floats.Widen(make([]float32, len(raw)*8/d.Bits()), raw, d)
}

// Narrowed are values as bytes of a float dtype.
func Narrowed(w []float32, d safetensors.Dtype) []byte {
	raw := make([]byte, len(w)*d.Bits()/8)
	floats.Narrow(raw, w, d)
	return raw
}

// Lines returns the fields of a file under testdata/golden, compressed or
// not.
func Lines(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile(Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		text = unzip(t, text)
	}
	var lines [][]string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
	}
	return lines
}

// unzip is the content of a compressed text.
func unzip(t *testing.T, text []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return text
}

func EqualData(a, b [][]byte) bool {
	for i := range a {
		if string(a[i]) != string(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func Describe(tensor tile.Tensor, data []byte) string {
	shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(tensor.Shape), " ", "x"), "[]")
	return fmt.Sprintf("%s:%s:%s", tensor.Dtype, shape, Hash(CanonicalNaN(data, tensor.Dtype)))
}

func Hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// CanonicalNaN gives every NaN one pattern: payloads vary with the build of
// the reference.
func CanonicalNaN(raw []byte, d safetensors.Dtype) []byte {
	raw = append([]byte(nil), raw...)
	switch d {
	case safetensors.F32:
		for i := 0; i < len(raw); i += 4 {
			if v := math.Float32frombits(binary.LittleEndian.Uint32(raw[i:])); v != v {
				binary.LittleEndian.PutUint32(raw[i:], 0x7FC00000)
			}
		}
	case safetensors.F16, safetensors.BF16:
		quiet, limit := uint16(0x7E00), uint16(0x7C00)
		if d == safetensors.BF16 {
			quiet, limit = 0x7FC0, 0x7F80
		}
		for i := 0; i < len(raw); i += 2 {
			if binary.LittleEndian.Uint16(raw[i:])&0x7FFF > limit {
				binary.LittleEndian.PutUint16(raw[i:], quiet)
			}
		}
	}
	return raw
}

// RotationRows are the lines of rotation.tsv of one kind: input, size, rest.
func RotationRows(t *testing.T, kind string, f func(name string, in Input, n int, rest []string)) {
	t.Helper()
	inputs, rows := Inputs(t), 0
	for _, l := range Lines(t, "rotation.tsv") {
		if l[0] == kind {
			n, _ := strconv.Atoi(l[2])
			in := inputs[l[1]]
			in.W = append([]float32(nil), in.W...)
			f(l[1], in, n, l[3:])
			rows++
		}
	}
	if rows < 8 {
		t.Errorf("%d golden rows of %s", rows, kind)
	}
}

func HashFloats(x []float32) string { return Hash(CanonicalNaN(BytesOf(x), safetensors.F32)) }

func Dtype(t testing.TB, name string) *dtype.Type {
	t.Helper()
	d, err := dtype.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Floats are the values of single-precision patterns.
func Floats(patterns ...uint32) []float32 {
	x := make([]float32, len(patterns))
	for i, u := range patterns {
		x[i] = math.Float32frombits(u)
	}
	return x
}

func Patterns(x []float32) string {
	var s []string
	for _, v := range x {
		s = append(s, fmt.Sprintf("%08X", math.Float32bits(v)))
	}
	return strings.Join(s, " ")
}

// Matrix is 64 rows of 256 values, exact in bfloat16, with zeros.
func Matrix() []float32 {
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

func Sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func Tensor(t *testing.T, file, name string) Input {
	t.Helper()
	f, err := safetensors.Open(Path(t, file+".safetensors"))
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
	return Input{tensor.Shape, tensor.Dtype, Widen(raw, tensor.Dtype)}
}
