package codec

import (
	"math"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// storedSVDQuant is the layer that comfy-kitchen made, and its bytes.
func storedSVDQuant(t *testing.T) (*Stored, map[tile.Role][]byte) {
	t.Helper()
	file, err := safetensors.Open(golden.Path(t, "svdquant.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	roles := map[string]tile.Role{
		"x.weight": tile.Weight, "x.weight_scale": tile.Scale, "x.weight_proj_down": tile.ProjDown,
		"x.weight_proj_up": tile.ProjUp, "x.weight_smooth_factor": tile.SmoothFactor,
	}
	l, data := &Stored{Metadata: pyjson.Object{{Key: "format", Value: "svdquant_w4a4"}}, Tensors: map[tile.Role]tile.Tensor{}}, map[tile.Role][]byte{}
	for _, one := range file.Header().Tensors {
		role, ok := roles[one.Name]
		if !ok {
			continue
		}
		raw := make([]byte, one.Size)
		if err := file.ReadSection(one, raw, 0); err != nil {
			t.Fatal(err)
		}
		l.Tensors[role], data[role] = tile.Tensor{Role: role, Dtype: one.Dtype, Shape: one.Shape}, raw
	}
	return l, data
}

// TestSVDQuantOfKitchen: a layer restores to what comfy-kitchen's own kernel makes of an
// identity, but for the last bits of its products, in areas as in one piece.
func TestSVDQuantOfKitchen(t *testing.T) {
	l, data := storedSVDQuant(t)
	c, err := svdquantW4A4.OpenAs(l)
	if err != nil {
		t.Fatal(err)
	}
	var stored [][]byte
	for _, one := range c.Tensors() {
		stored = append(stored, data[one.Role])
	}
	got, err := DecodeAll(c, stored, safetensors.F32)
	if err != nil {
		t.Fatal(err)
	}
	want := golden.InputFile(t, "svdquant_restored")["x.weight"].W
	most := 0.0
	for _, v := range want {
		most = max(most, math.Abs(float64(v)))
	}
	for i, v := range want {
		if math.Abs(float64(got[i]-v)) > 1e-6*most {
			t.Fatalf("value %d is %v, want %v", i, got[i], v)
		}
	}
	columns := c.Shape()[1]
	a := tile.Area{Row: 3, Col: 64, Rows: 9, Cols: 128}
	src := make([][]byte, len(stored))
	for i := range src {
		for _, span := range c.Needed(i, a) {
			src[i] = append(src[i], span.Take(stored[i])...)
		}
	}
	part := make([]float32, a.Values())
	c.Decode(part, src, a, safetensors.F32, new(tile.Scratch))
	for i, v := range part {
		if v != got[a.Index(i, columns)] {
			t.Fatalf("value %d of an area is %v, of the whole %v", i, v, got[a.Index(i, columns)])
		}
	}
}

// TestSVDQuantThatContradicts: tensors that do not fit together are refused.
func TestSVDQuantThatContradicts(t *testing.T) {
	for name, c := range map[string]struct {
		role  tile.Role
		shape []int
		want  string
	}{
		"tiles":          {tile.Weight, []int{1, 3, 32, 128}, "lie in tiles"},
		"columns":        {tile.Weight, []int{20, 50}, "groups of 64 do not divide 100 columns"},
		"scales":         {tile.Scale, []int{20, 3}, "scale is F32 [20 3], want F32 [3 20]"},
		"another rank":   {tile.ProjUp, []int{20, 5}, "proj_up is F32 [20 5], want F32 [20 4]"},
		"down of a line": {tile.ProjDown, []int{768}, "want [columns, rank]"},
		"smooth":         {tile.SmoothFactor, []int{191}, "smooth_factor is F32 [191], want F32 [192]"},
	} {
		l, _ := storedSVDQuant(t)
		reshape(l, c.role, c.shape)
		if _, err := svdquantW4A4.OpenAs(l); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	l, _ := storedSVDQuant(t)
	delete(l.Tensors, tile.SmoothFactor)
	if _, err := svdquantW4A4.OpenAs(l); err == nil || !strings.Contains(err.Error(), "its smooth_factor is missing") {
		t.Errorf("%v", err)
	}
}
