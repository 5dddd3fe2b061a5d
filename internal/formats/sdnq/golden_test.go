package sdnq

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

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
	for _, fields := range golden.Lines(t, "sdnq.tsv.gz") {
		rows = append(rows, parseRow(t, fields))
	}
	if len(rows) < 30000 {
		t.Fatalf("%d golden rows, want over 30000", len(rows))
	}
	return rows
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
	inputs, rows := golden.Inputs(t), map[string][]row{}
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
func compareRow(t *testing.T, r row, in golden.Input, plain bool) {
	t.Helper()
	o := Options{
		Dtype: r.dtype, GroupSize: r.group, ScaleDtype: safetensors.F32, ExactReference: true,
		AllowNonfinite: strings.HasPrefix(r.input, "nonfinite"),
	}
	if !r.fp32 {
		o.ScaleDtype = in.Dtype
	}
	q, err := Quantize(in.W, in.Shape, o)
	if (err != nil) != r.raises {
		t.Errorf("%v: error %v, reference raises: %v", r, err, r.raises)
	}
	if err != nil {
		return
	}
	compareStored(t, r, q)
	if plain && !defective(r.dtype) {
		o.ExactReference = false
		if p, err := Quantize(in.W, in.Shape, o); err != nil || !golden.EqualData(q.Data, p.Data) {
			t.Errorf("%v: default differs from exact reference: %v", r, err)
		}
	}
}

func compareStored(t *testing.T, r row, q *Quantized) {
	t.Helper()
	tensors := q.Scheme.Tensors()
	for i, want := range r.tensors {
		got := "-"
		if i < len(tensors) {
			got = golden.Describe(tensors[i], q.Data[i])
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
	if got := golden.Hash(golden.CanonicalNaN(raw, safetensors.F32)); got != r.dq {
		t.Errorf("%v: dequantized %s, want %s", r, got, r.dq)
	}
}
