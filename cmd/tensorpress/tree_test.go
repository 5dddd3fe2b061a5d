package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/report"
)

// inspectionOf is a checkpoint of plain tensors of these names.
func inspectionOf(names ...string) *report.Inspection {
	v := &report.Inspection{}
	for _, name := range names {
		v.Tensors = append(v.Tensors, report.Tensor{Name: name, Dtype: "BF16", Shape: []int{4}, Bytes: 8})
	}
	return v
}

// TestTree: what a row stands for is exactly what is there, in the order of numbers.
func TestTree(t *testing.T) {
	for _, tt := range []struct{ names, want string }{
		{"a.0 a.1 a.2", "a.[0-2]×3"},
		{"a.10 a.9 a.2 a.0", "a.[0,2,9-10]×4"},
		{"b a", "a×1 b×1"},
		{"a.0.x a.0.y a.1.x", "a.[0-1].x×2 a.0.y×1"},
		{"l.0.e.0.u l.0.e.1.u l.1.e.0.u l.1.e.1.u l.2.e.0.u", "l.[0-1].e.[0-1].u×4 l.2.e.0.u×1"},
		{"l.0.e.0 l.0.e.1 l.1.e.1 l.2.e.0 l.2.e.1 l.3.e.1", "l.[0,2].e.[0-1]×4 l.[1,3].e.1×2"},
		{"a.01 a.1 a.2", "a.[1-2]×2 a.01×1"}, // 01 is no number: it would not come back
		{"a.-1 a.99999999999999999999 a.1", "a.1×1 a.-1×1 a.99999999999999999999×1"},
		{"a.\x00.1 a.1.\x00", "a.1.\x00×1 a.\x00.1×1"},
		{"0 1 3", "[0-1,3]×3"},
		{"", "×1"},
		{"a..0 a..1 .", ".×1 a..[0-1]×2"},
	} {
		var got []string
		for _, r := range tree(inspectionOf(strings.Split(tt.names, " ")...)) {
			got = append(got, fmt.Sprintf("%s×%d", r.Name, r.Count))
		}
		if text := strings.Join(got, " "); text != tt.want {
			t.Errorf("%q: %q, want %q", tt.names, text, tt.want)
		}
	}
}

// TestTreeCountsAll: nothing is lost, whatever the order in which names come.
func TestTreeCountsAll(t *testing.T) {
	var names []string
	for i := range 40 {
		for j := range 7 {
			if (i*7+j)%11 != 3 {
				names = append(names, fmt.Sprintf("m.%d.e.%d.w", i, j))
			}
		}
	}
	want := tree(inspectionOf(names...))
	slices.Reverse(names)
	got := tree(inspectionOf(names...))
	count, bytes := 0, int64(0)
	for i, r := range got {
		count, bytes = count+r.Count, bytes+r.Bytes
		if r.Name != want[i].Name {
			t.Errorf("row %d is %s, and %s of names in another order", i, want[i].Name, r.Name)
		}
	}
	if count != len(names) || bytes != int64(8*len(names)) {
		t.Errorf("%d tensors of %d bytes, want %d", count, bytes, len(names))
	}
}

// TestTreeOfExperts: two numbers that all go together are one row, of many thousand layers
// too.
func TestTreeOfExperts(t *testing.T) {
	v := &report.Inspection{Layout: "sdnq"}
	for i := range 100 {
		for j := range 256 {
			name := fmt.Sprintf("layers.%d.mlp.experts.%d.up_proj", i, j)
			tensors := []report.Tensor{{Name: name + ".weight", Dtype: "U8"}, {Name: name + ".scale", Dtype: "F32"}}
			v.Layers = append(v.Layers, report.StoredLayer{
				Name: name, Format: "sdnq", Dtype: "uint4", Shape: []int{768, 2048}, Tensors: tensors,
				Options: report.Options{{Key: "format", Value: "sdnq"}, {Key: "group_size", Value: 64}},
			})
			v.Tensors = append(v.Tensors, tensors...)
		}
	}
	rows := tree(v)
	if len(rows) != 1 || rows[0].Name != "layers.[0-99].mlp.experts.[0-255].up_proj" || rows[0].Count != 25600 || rows[0].Stored != "uint4 group 64" {
		t.Errorf("rows %+v", rows)
	}
}

// TestWideCells: a name with thousands of numbers does not fill every other row with as many
// spaces, and other rows stay in columns.
func TestWideCells(t *testing.T) {
	table := newTable(1)
	wide := strings.Repeat("1,3,", widest)
	for _, name := range []string{"a", wide, "abc"} {
		table.add(name, "7", "end")
	}
	var b strings.Builder
	table.print(&b)
	if want := "a    7  end\n" + wide + "  7  end\nabc  7  end\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
