package quant

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
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// input is one weight of testdata/golden/inputs.safetensors.
type input struct {
	shape []int
	dtype safetensors.Dtype
	w     []float32
}

func readInputs(t *testing.T) map[string]input {
	return readInputFile(t, "../testdata/golden/inputs.safetensors")
}

func readInputFile(t *testing.T, path string) map[string]input {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inputs := map[string]input{}
	for _, tensor := range f.Header().Tensors {
		raw := make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		inputs[tensor.Name] = input{tensor.Shape, tensor.Dtype, widen(raw, tensor.Dtype)}
	}
	return inputs
}

func widen(raw []byte, d safetensors.Dtype) []float32 {
	w := make([]float32, len(raw)*8/d.Bits())
	switch d {
	case safetensors.BF16:
		kernel.WidenBF16(w, raw)
	case safetensors.F16:
		kernel.WidenF16(w, raw)
	default:
		kernel.WidenF32(w, raw)
	}
	return w
}

func narrowed(w []float32, d safetensors.Dtype) []byte {
	raw := make([]byte, len(w)*d.Bits()/8)
	switch d {
	case safetensors.BF16:
		kernel.NarrowBF16(raw, w)
	case safetensors.F16:
		kernel.NarrowF16(raw, w)
	default:
		kernel.NarrowF32(raw, w)
	}
	return raw
}

// row is one line of testdata/golden/sdnq.tsv.gz: what sdnq made of an input.
type row struct {
	input   string
	dtype   *dtype.Type
	group   int
	fp32    bool
	raises  bool
	tensors []string // weight, scale, zero point or "-"
	dq      string
}

func readRows(t *testing.T) []row {
	t.Helper()
	var rows []row
	for _, fields := range goldenLines(t, "sdnq.tsv.gz") {
		rows = append(rows, parseRow(t, fields))
	}
	if len(rows) < 30000 {
		t.Fatalf("%d golden rows, want over 30000", len(rows))
	}
	return rows
}

// goldenLines returns the fields of a file under testdata/golden, compressed or
// not.
func goldenLines(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../testdata/golden/" + name)
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

func parseRow(t *testing.T, f []string) row {
	t.Helper()
	d, err := dtype.Parse(f[1])
	if err != nil {
		t.Fatal(err)
	}
	group, _ := strconv.Atoi(f[2])
	r := row{input: f[0], dtype: d, group: group, fp32: f[3] == "1"}
	if strings.HasPrefix(f[4], "raise") {
		r.raises = true
		return r
	}
	for _, field := range f[4:7] {
		_, value, _ := strings.Cut(field, "=")
		r.tensors = append(r.tensors, value)
	}
	r.dq = strings.TrimPrefix(f[7], "dq=")
	return r
}

func (r row) String() string {
	return fmt.Sprintf("%s %s group %d fp32 %v", r.input, r.dtype, r.group, r.fp32)
}

// defective types are those that the default stores more faithfully than sdnq.
func defective(d *dtype.Type) bool {
	return d.Divisor != d.Max || d.Class == dtype.Packed && d.Exponent == 1
}

// TestStoredBytesEqualReference: files would not be what sdnq writes.
func TestStoredBytesEqualReference(t *testing.T) {
	inputs, rows := readInputs(t), map[string][]row{}
	for i, r := range readRows(t) {
		if !testing.Short() || (i+i/9)%9 == 0 { // one of nine, not always of one group
			rows[r.input] = append(rows[r.input], r)
		}
	}
	for name, in := range inputs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var last *dtype.Type
			for _, r := range rows[name] {
				compareRow(t, r, in, r.dtype != last)
				last = r.dtype
			}
		})
	}
}

// compareRow stores one input as sdnq did and, if plain is asked for, as the
// default does: only defective types may differ.
func compareRow(t *testing.T, r row, in input, plain bool) {
	t.Helper()
	o := Options{
		Dtype: r.dtype, GroupSize: r.group, ScaleDtype: safetensors.F32, ExactReference: true,
		AllowNonfinite: strings.HasPrefix(r.input, "nonfinite"),
	}
	if !r.fp32 {
		o.ScaleDtype = in.dtype
	}
	q, err := Quantize(in.w, in.shape, o)
	if (err != nil) != r.raises {
		t.Errorf("%v: error %v, reference raises: %v", r, err, r.raises)
	}
	if err != nil {
		return
	}
	compareStored(t, r, q)
	if plain && !defective(r.dtype) {
		o.ExactReference = false
		if p, err := Quantize(in.w, in.shape, o); err != nil || !equalData(q.Data, p.Data) {
			t.Errorf("%v: default differs from exact reference: %v", r, err)
		}
	}
}

func equalData(a, b [][]byte) bool {
	for i := range a {
		if string(a[i]) != string(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func compareStored(t *testing.T, r row, q *Quantized) {
	t.Helper()
	tensors := q.Scheme.Tensors()
	for i, want := range r.tensors {
		got := "-"
		if i < len(tensors) {
			got = describe(tensors[i], q.Data[i])
		}
		if got != want {
			t.Errorf("%v: tensor %d is %s, want %s", r, i, got, want)
		}
	}
	w, err := Dequantize(q)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 4*len(w))
	kernel.NarrowF32(raw, w)
	if got := hash(canonicalNaN(raw, safetensors.F32)); got != r.dq {
		t.Errorf("%v: dequantized %s, want %s", r, got, r.dq)
	}
}

func describe(tensor Tensor, data []byte) string {
	shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(tensor.Shape), " ", "x"), "[]")
	return fmt.Sprintf("%s:%s:%s", tensor.Dtype, shape, hash(canonicalNaN(data, tensor.Dtype)))
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// canonicalNaN gives every NaN one pattern: payloads vary with the build of
// the reference.
func canonicalNaN(raw []byte, d safetensors.Dtype) []byte {
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
