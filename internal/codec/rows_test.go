package codec

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/safetensors"
)

// natives are the rows of formats that are not SDNQ's.
func natives() []*Format {
	return slices.DeleteFunc(Formats(), func(f *Format) bool { return f == sdnqFormat })
}

// TestEveryRowIsListed: a row that [Formats] does not name is a format that nobody
// can ask for.
func TestEveryRowIsListed(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.CompositeLit); ok {
				if name, ok := l.Type.(*ast.Ident); ok && name.Name == "Format" {
					rows++
				}
			}
			return true
		})
	}
	if rows != len(Formats()) {
		t.Errorf("%d rows are written and %d listed", rows, len(Formats()))
	}
}

// TestRowsAreWhole: what a row leaves out is missing far from it, in a table, in
// the way to another layout, or in what an application is said to load.
func TestRowsAreWhole(t *testing.T) {
	doc, err := os.ReadFile("../../docs/comfy-formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range natives() {
		wrong := func(is bool, what string) {
			if is {
				t.Errorf("%s: %s", f.Name, what)
			}
		}
		wrong(Lookup(f.Name) != f, "another has its name")
		wrong(!strings.Contains(string(doc), "`"+f.Name+"`"), "docs/comfy-formats.md does not have it")
		wrong(f.Bits == 0 || f.Storage == 0 || f.Max == 0, "Bits, Storage or Max are missing")
		wrong(f.Open == nil, "Open is missing")
		wrong((f.make == nil) != (f.ReadOnly != ""), "it wants either make or ReadOnly")
		wrong((f.ComfyUI == "") != (f.Near != ""), "it wants either ComfyUI or Near")
		near := Lookup(f.Near)
		wrong(f.Near != "" && (near == nil || near.ComfyUI == ""), "Near is nothing that ComfyUI loads")
		kin := dtype.Lookup(f.Kin.Dtype)
		wrong(kin == nil || !kin.Storable(), "Kin is no dtype of SDNQ's")
		wrong(f.fromSDNQ != nil && f.toSDNQ == nil, "it comes from SDNQ and has no way back")
		for _, name := range f.Scales {
			wrong(Lookup(name) == nil, "a scale makes it "+name+", which is no format")
		}
	}
}

// asked are settings of which each format takes some.
var asked = []Settings{
	{}, {GroupSize: 32}, {BlockSize: 64}, {ConvRot: true}, {ConvRotGroupSize: 64}, {ConvRot: true, ConvRotGroupSize: 16},
	{Bits: 6}, {FullPrecisionMatmul: true}, {Scale: "row"}, {Scale: "tensor"}, {SVDRank: 8},
}

// untold are settings that a layer does not show.
var untold = []string{"input-scale", "output-dtype", "scale-as-input", "variant", "dynamic-convrot", "search", "svd-steps", "svd-refit"}

// TestAllIsAsked: what a format takes is asked of it below.
func TestAllIsAsked(t *testing.T) {
	for i := range fields {
		one := &fields[i]
		isAsked := func(s Settings) bool { return one.get(&s) != one.get(&Settings{}) }
		if one.of == ofSome && !slices.Contains(untold, one.Flag) && !slices.ContainsFunc(asked, isAsked) {
			t.Errorf("no format is asked for %s", one.Flag)
		}
	}
}

// eachMade calls do with a layer of every format that is written, in all settings
// of [asked] that it takes.
func eachMade(t *testing.T, do func(f *Format, s Settings, c Codec, l *Stored)) {
	t.Helper()
	for _, f := range natives() {
		made := 0
		for _, s := range asked {
			if s.Dtype = f.Name; f.ReadOnly != "" || f.Check(s) != nil {
				continue
			}
			c, metadata, err := f.Make(Source{Shape: []int{256, 256}, Dtype: safetensors.BF16}, s)
			if err != nil {
				t.Errorf("%+v: %v", s, err)
				continue
			}
			made++
			do(f, s, c, written(t, c, metadata))
		}
		if made == 0 && f.ReadOnly == "" {
			t.Errorf("%s takes none of the settings", f.Name)
		}
	}
}

// TestToldMakesTheSame: who wants a model like another one gets layers like its.
func TestToldMakesTheSame(t *testing.T) {
	eachMade(t, func(f *Format, s Settings, c Codec, l *Stored) {
		told := Default().With(f.SettingsFromMetadata(l.Metadata, c))
		again, metadata, err := f.Make(Source{Shape: c.Shape(), Dtype: safetensors.BF16}, told)
		if err != nil {
			t.Errorf("%+v is told as %+v: %v", s, told, err)
			return
		}
		l2 := written(t, again, metadata)
		if again.Cut() != c.Cut() || !reflect.DeepEqual(again.Tensors(), c.Tensors()) || !reflect.DeepEqual(l2.Metadata, l.Metadata) {
			t.Errorf("%+v is told as %+v, which makes another layer", s, told)
		}
	})
}

// TestKinTakesTheLayer: a layer that is quantized again for the sdnq layout needs
// settings that SDNQ takes.
func TestKinTakesTheLayer(t *testing.T) {
	eachMade(t, func(f *Format, s Settings, c Codec, l *Stored) {
		in := InSDNQ(f, l.Metadata, c, sdnq.Linear)
		if _, _, err := SDNQ().Make(Source{Shape: c.Shape(), Dtype: safetensors.BF16}, in); err != nil {
			t.Errorf("%+v is quantized again with %+v: %v", s, in, err)
		}
	})
}

// TestMovesBothWays: what comes from SDNQ by its codes goes there by its codes.
func TestMovesBothWays(t *testing.T) {
	eachMade(t, func(f *Format, s Settings, c Codec, l *Stored) {
		if f.fromSDNQ == nil {
			return
		}
		m, err := FromNative(Source{Shape: c.Shape(), Dtype: safetensors.BF16}, sdnq.Linear, f, l.Metadata, c)
		if err != nil {
			t.Errorf("%+v to SDNQ: %v", s, err)
			return
		}
		back, err := ToNative(m.To, Native{Rows: true})
		if err != nil || back.Format != f || !reflect.DeepEqual(back.To.Tensors(), c.Tensors()) {
			t.Errorf("%+v comes back from SDNQ as %+v, %v", s, back, err)
		}
	})
}
