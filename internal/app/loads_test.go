package app

import (
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
)

// wrong reports an error that is not there, or does not hold a text; "" is none.
func wrong(t *testing.T, label string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", label, err, want)
	}
}

func byName(t *testing.T, name string) *App {
	t.Helper()
	a, err := ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestCheckOutput: an application is given what it reads, or the user is told before
// the work.
func TestCheckOutput(t *testing.T) {
	for _, a := range All() {
		for _, layout := range []string{"comfy", "sdnq", "scaled_fp8", ""} {
			for _, folder := range []bool{true, false} {
				want := ""
				switch {
				case layout != a.Layout && (layout == "" || layout != a.Older):
					want = a.Name + " loads the " + a.Layout + " layout"
				case a.Folder && !folder:
					want = "give the folder"
				}
				wrong(t, a.Name+" "+layout, a.CheckOutput(layout, folder), want)
			}
		}
	}
}

// TestCheckClass: a model that an application does not load quantized is not
// quantized for it.
func TestCheckClass(t *testing.T) {
	for _, a := range All() {
		for _, class := range a.classes {
			wrong(t, a.Name+" "+class, a.CheckClass([]string{class}), "")
		}
		want := ""
		if a.classes != nil {
			want = "does not load a quantized Strange2DModel"
		}
		wrong(t, a.Name, a.CheckClass([]string{"Strange2DModel"}), want)
		wrong(t, a.Name, a.CheckClass(nil), "")
		wrong(t, a.Name, a.CheckAddon("a LoRA", "lora_up"), "it is a LoRA (lora_up), which "+a.Name)
	}
}

// layerOf is a layer of SDNQ's as it would be stored.
func layerOf(t *testing.T, name, global, listed string, shape []int, set func(*sdnq.Options)) SDNQLayer {
	t.Helper()
	d, err := dtype.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	o := sdnq.Options{Dtype: d}
	if set != nil {
		set(&o)
	}
	s, err := sdnq.NewScheme(shape, o)
	if err != nil {
		t.Fatal(err)
	}
	return SDNQLayer{Scheme: s, Global: global, Listed: listed}
}

// TestInvokeAI: its reader restores the values of a layer, or the layer is refused.
func TestInvokeAI(t *testing.T) {
	rows := func(o *sdnq.Options) { o.GroupSize = -1 }
	whole := func(o *sdnq.Options) { o.GroupSize = -2 }
	linear, conv := []int{64, 256}, []int{64, 32, 3, 3}
	for _, tt := range []struct {
		name, global, listed string
		shape                []int
		set                  func(*sdnq.Options)
		want                 string // "" where it loads it
	}{
		{"int8", "int8", "", linear, rows, ""},
		{"uint8", "uint8", "", linear, rows, ""},
		{"float8_e4m3fn", "float8_e4m3fn", "", linear, rows, ""},
		{"float8_e5m2", "", "", linear, rows, ""},
		{"uint4", "uint4", "", linear, nil, ""},
		{"uint4", "int8", "uint4", linear, nil, ""},
		{"int5", "int5", "", linear, nil, ""},
		{"int8", "uint4", "int8", linear, rows, ""},
		{"uint4", "", "", linear, nil, "would not know that it is uint4"},
		{"uint4", "int8", "", linear, nil, "looks in modules_dtype_dict alone"},
		{"int8", "uint4", "", linear, rows, "would read int8 as uint4"},
		{"uint8", "uint8", "", []int{64, 64}, rows, "would read uint8 as uint4"},
		{"uint4", "uint4", "", linear, whole, "one scale a tensor"},
		{"int8", "int8", "", linear, func(o *sdnq.Options) { o.GroupSize = 32 }, "in groups"},
		{"int6", "int6", "", linear, nil, "does not load int6"},
		{"float6_e3m2fn", "", "", linear, nil, "does not load float6_e3m2fn"},
		{"int8", "int8", "", linear, func(o *sdnq.Options) { o.GroupSize, o.Hadamard = -1, 64 }, "rotated"},
		{"uint4", "uint4", "", linear, func(o *sdnq.Options) { o.Codebook = true }, "codebooks"},
		{"int8", "int8", "", linear, func(o *sdnq.Options) { o.GroupSize, o.Matmul = -1, true }, "quantized matmul"},
		{"int8", "int8", "", conv, func(o *sdnq.Options) { o.GroupSize, o.Kind = -1, sdnq.Conv }, ""},
		{"uint4", "uint4", "", conv, func(o *sdnq.Options) { o.Kind = sdnq.Conv }, "convolutions with whole bytes"},
		{"int8", "int8", "", conv, func(o *sdnq.Options) { o.GroupSize, o.Kind, o.Rank = -1, sdnq.Conv, 4 }, "without a low-rank part"},
	} {
		l := layerOf(t, tt.name, tt.global, tt.listed, tt.shape, tt.set)
		wrong(t, tt.name+" in "+tt.global+" listed as "+tt.listed, byName(t, "invokeai").CheckSDNQ(l), tt.want)
		for _, a := range All() {
			if a.sdnq == nil {
				wrong(t, a.Name, a.CheckSDNQ(l), "")
			}
		}
	}
	wrong(t, "no layer of SDNQ's", byName(t, "invokeai").CheckSDNQ(SDNQLayer{}), "")
}

// TestLoadingSDNQ: what `formats` lists beside a dtype is what --for lets through.
func TestLoadingSDNQ(t *testing.T) {
	for _, d := range dtype.All() {
		if !d.Storable() {
			continue
		}
		names := LoadingSDNQ(d)
		for _, a := range All() {
			want := a.Layout == "sdnq"
			if a.sdnq != nil {
				for _, group := range []int{-1, 0} { // which of them it takes depends on the dtype
					l := layerOf(t, d.Name, d.Name, "", []int{64, 256}, func(o *sdnq.Options) { o.GroupSize = group })
					if want = a.CheckSDNQ(l) == nil; want {
						break
					}
				}
			}
			if got := slices.Contains(names, a.Name); got != want {
				t.Errorf("%s: %s is listed: %v, and loads it: %v", d, a.Name, got, want)
			}
		}
	}
}

// TestAdvice: what an error says to write in a dtype's place makes a layer that is
// loaded, and names that mean another format are not taken for it.
func TestAdvice(t *testing.T) {
	for _, f := range codec.Formats() {
		if got := Written(f, f.Name); f != codec.SDNQ() && got != f.Name {
			t.Errorf("%s is written %s", f.Name, got)
		}
		if text := Instead(f, f.Name); f != codec.SDNQ() && !strings.Contains(text, Nearest(f.Name)) {
			t.Errorf("%s: %q", f.Name, text)
		}
	}
	for name, want := range map[string][2]string{
		"float8_e4m3fn": {"sdnq:float8_e4m3fn", "float8_e4m3fn"}, "uint4": {"uint4", "nvfp4"}, "int8": {"int8", "int8_tensorwise"},
	} {
		if got := Written(codec.SDNQ(), name); got != want[0] {
			t.Errorf("%s is written %s, want %s", name, got, want[0])
		}
		if text := Instead(codec.SDNQ(), name); !strings.Contains(text, want[1]) {
			t.Errorf("%s: %q, want %s", name, text, want[1])
		}
		wrong(t, name, byName(t, "comfyui").CheckLayer(codec.SDNQ(), name), "does not load")
	}
}

// TestRelease: the release that a user needs stands beside the application that
// has releases, and nowhere else.
func TestRelease(t *testing.T) {
	for _, f := range codec.Formats() {
		for _, a := range All() {
			for _, embedding := range []bool{false, true} {
				release := f.ComfyUI
				if embedding && f.Embeddings != "" {
					release = f.Embeddings
				}
				got := a.Release(f, embedding, false)
				known := a.Layout == "comfy" && release != "" && release != codec.AnyRelease
				if known != (got != "") || known && (!strings.HasPrefix(got, a.Name) || !strings.HasSuffix(got, release)) {
					t.Errorf("%s of %s: %q, want %s", f.Name, a.Name, got, release)
				}
			}
		}
	}
}
