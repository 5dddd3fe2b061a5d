package sdnq

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestCodebookEqualsReference: levels and codes would not be what sdnq writes.
func TestCodebookEqualsReference(t *testing.T) {
	inputs, rows := golden.Inputs(t), 0
	for i, l := range golden.Lines(t, "codebook.tsv") {
		in, d := inputs[l[0]], golden.Dtype(t, l[1])
		in = smallRows(in)
		if d.Bits > 8 { // of eight rows
			in.Shape = []int{min(8, in.Shape[0]), in.Shape[1]}
			in.W = in.W[:in.Shape[0]*in.Shape[1]]
		}
		if testing.Short() && (d.Bits > 8 || i%4 > 0) {
			continue
		}
		requested, _ := strconv.Atoi(l[2])
		size := groupOf(t, in.Shape[1], Options{Dtype: d, GroupSize: requested, Codebook: true})
		s, err := NewScheme(in.Shape, Options{Dtype: d, GroupSize: size, ScaleDtype: safetensors.F32})
		if err != nil {
			t.Fatal(err)
		}
		n := codebook.CodebookLevels(d)
		codes, restored := make([]uint16, s.Values), make([]float32, s.Values)
		var fit codebook.Lloyd
		var levels []float32
		for at := 0; at < s.Values; at += s.Group {
			values := in.W[at : at+s.Group]
			fit.Fit(codes[at:], values, n, codebook.CodebookSteps)
			levels = append(levels, fit.Levels()...)
			codebook.LookUp(restored[at:at+s.Group], codes[at:at+s.Group], fit.Levels())
		}
		shape := []int{n}
		if size != -2 {
			shape = append(slices.Clone(s.scaleShape()[:len(s.scaleShape())-1]), n)
		}
		tensor := s.Tensors()[0]
		data := make([]byte, pack.Size(s.Values, d.Bits))
		pack.Pack(data, codes, d.Bits)
		got := []string{golden.Describe(tensor, data), golden.Describe(tile.Tensor{Role: tile.Scale, Dtype: safetensors.F32, Shape: shape}, golden.BytesOf(levels))}
		if d.Divisor == d.Max { // else the reference reads other codes than it wrote
			got = append(got, "dq="+golden.HashFloats(restored))
		}
		if want := l[3 : 3+len(got)]; !slices.Equal(got, want) {
			t.Errorf("%v: %v", l, got)
		}
		rows++
	}
	if least := map[bool]int{true: 100, false: 400}[testing.Short()]; rows < least {
		t.Errorf("%d golden rows", rows)
	}
}

func smallRows(in golden.Input) golden.Input {
	var w []float32
	for row := range slices.Chunk(in.W, in.Shape[1]) {
		if lo, hi := kernel.MinMax(row); max(-lo, hi) < 1e37 {
			w = append(w, row...)
		}
	}
	return golden.Input{Shape: []int{len(w) / in.Shape[1], in.Shape[1]}, Dtype: in.Dtype, W: w}
}

// TestScalesEqualReference: quantized scales and zero points.
func TestScalesEqualReference(t *testing.T) {
	inputs, rows := golden.Inputs(t), 0
	for i, l := range golden.Lines(t, "scales.tsv") {
		if testing.Short() && i%3 > 0 {
			continue
		}
		in, d := inputs[l[0]], golden.Dtype(t, l[3])
		group, _ := strconv.Atoi(l[2])
		q, err := Quantize(in.W, in.Shape, Options{
			Dtype: golden.Dtype(t, l[1]), GroupSize: group, ScaleDtype: safetensors.F32,
			ScaleStore: d, ZeroPointStore: d, CodebookScale: l[4] == "1", ExactReference: true,
		})
		if err != nil {
			t.Fatal(l, err)
		}
		var got []string
		for i, tensor := range q.Scheme.Tensors() {
			got = append(got, fmt.Sprintf("%s=%s", tensor.Role, golden.Describe(tensor, q.Data[i])))
		}
		slices.Sort(got)
		w, err := Dequantize(q)
		if err != nil {
			t.Fatal(err)
		}
		if l[4] == "0" || d.Divisor == d.Max { // overflowing codes have no level
			got = append(got, "dq="+golden.HashFloats(w))
		}
		if want := l[5 : 5+len(got)]; !slices.Equal(got, want) {
			t.Errorf("%v:\n%v", strings.Join(l, " "), strings.Join(got, " "))
		}
		rows++
	}
	if least := map[bool]int{true: 70, false: 200}[testing.Short()]; rows < least {
		t.Errorf("%d golden rows", rows)
	}
}
