package sdnqconfig

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// golden returns the fields of a table's rows.
func golden(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// TestMatchEqualsSDNQ: a loader would quantize a layer that we kept, or the
// other way round, and the checkpoint would not load.
func TestMatchEqualsSDNQ(t *testing.T) {
	rows := golden(t, "match.tsv")
	names := strings.Fields(rows[0][1])
	for _, row := range rows[1:] {
		want := strings.Fields(row[1])
		if strings.HasPrefix(row[1], "raise=") {
			want = nil // sdnq aborts: such an entry matches nothing
		}
		for _, name := range names {
			if _, got := Match(name, []string{row[0]}); got != slices.Contains(want, name) {
				t.Errorf("entry %s matches %s: %v, want %v", row[0], name, got, !got)
			}
		}
	}
	if n := len(names) * (len(rows) - 1); n < 1000 {
		t.Errorf("compared %d pairs, want at least 1000", n)
	}
}

func TestMatchTakesTheFirstEntry(t *testing.T) {
	list := []string{"none", ".a.b", "*"}
	if entry, ok := Match("a.b.weight", list); !ok || entry != ".a.b" {
		t.Errorf("got %q, %v", entry, ok)
	}
	if entry, ok := Match("a.b.weight", nil); ok || entry != "" {
		t.Errorf("an empty list gave %q", entry)
	}
}

// TestDtypeListsEqualSDNQ: a layer would be stored in another dtype than the
// loader expects of modules_dtype_dict.
func TestDtypeListsEqualSDNQ(t *testing.T) {
	for _, row := range golden(t, "minimum.tsv") {
		c := Default()
		c.WeightsDtype = row[0]
		c.DtypeLists = []DtypeList{{row[1], []string{"x"}}}
		got, err := c.For("x.weight")
		switch want := dtype.Lookup(row[2]); {
		case strings.HasPrefix(row[2], "raise="):
			if err == nil {
				t.Errorf("%s under %s is %s, want an error", row[0], row[1], got.WeightsDtype)
			}
		case err != nil || dtype.Lookup(got.WeightsDtype) != want:
			t.Errorf("%s under %s is %s, %v, want %s", row[0], row[1], got.WeightsDtype, err, row[2])
		}
	}
}

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestForFollowsTheOrderOfTheFile: the first module entry that matches wins,
// and a minimum that is met already passes on to the next list.
func TestForFollowsTheOrderOfTheFile(t *testing.T) {
	c := parsed(t, `{"weights_dtype": "int8", "group_size": 32, "use_svd": true,
		"modules_quant_config": {"blocks.*.attn": {"weights_dtype": "uint4", "use_svd": false},
			"blocks.*": {"group_size": 64, "dequantize_fp32": false}, "odd": {"typo": 1}},
		"modules_dtype_dict": {"minimum_6bit": "to_q", "uint2": ["to_q", "head"], "int5": ["head"]}}`)
	tests := []struct {
		param, dtype string
		group        int
		fp32, svd    bool
	}{
		{"blocks.0.attn.to_k.weight", "uint4", 32, true, false},
		{"blocks.0.attn.to_q.weight", "int6", 32, true, false},
		{"blocks.0.ff.weight", "int8", 64, false, true},
		{"blocks.0.ff.to_q.weight", "uint2", 64, false, true},
		{"head.weight", "uint2", 32, true, true},
		{"tail.weight", "int8", 32, true, true},
	}
	for _, tt := range tests {
		s, err := c.For(tt.param)
		if err != nil || s.WeightsDtype != tt.dtype || s.GroupSize != tt.group || s.DequantizeFP32 != tt.fp32 || (len(s.Others) > 0) != tt.svd {
			t.Errorf("%s: %+v, %v, want %+v", tt.param, s, err, tt)
		}
	}
	if _, err := c.For("odd.weight"); err == nil || !strings.Contains(err.Error(), "typo") {
		t.Errorf("an unknown setting of a module: %v", err)
	}
	if len(c.Others) != 1 {
		t.Errorf("a layer's settings changed the config's: %v", c.Others)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]string{ // text to what the error must hold
		`{`:                                        "SDNQ config",
		`[]`:                                       "not a JSON object",
		`{"quant_method": "bitsandbytes"}`:         "bitsandbytes",
		`{"weights_dtype": "int17"}`:               "int17",
		`{"weights_dtype": 8}`:                     "weights_dtype",
		`{"weights_dtype": null}`:                  "null is not a dtype",
		`{"weights_dtype": "float32"}`:             "cannot store",
		`{"group_size": "64"}`:                     "group_size",
		`{"group_size": 1.5}`:                      "group_size",
		`{"group_size": 99999999999999999999}`:     "group_size",
		`{"dequantize_fp32": "true"}`:              "dequantize_fp32",
		`{"add_skip_keys": 1}`:                     "add_skip_keys",
		`{"minimum_allowed_numel": null}`:          "minimum_allowed_numel",
		`{"minimum_allowed_channel_size": []}`:     "minimum_allowed_channel_size",
		`{"modules_to_not_convert": {"a": 1}}`:     "modules_to_not_convert",
		`{"modules_to_not_convert": [1]}`:          "1 is not a name",
		`{"modules_dtype_dict": ["a"]}`:            "modules_dtype_dict",
		`{"modules_dtype_dict": {"int8": 3}}`:      "modules_dtype_dict",
		`{"modules_dtype_dict": {"int17": ["a"]}}`: "int17",
		`{"modules_dtype_dict": {"0bit": ["a"]}}`:  "0bit",
		`{"modules_quant_config": {"a": "int8"}}`:  "modules_quant_config",
		`{"tensorpress_shapes": 1}`:                "tensorpress_shapes",
		`{"group_size": 1, "group_size": 2}`:       "twice",
	}
	for text, want := range tests {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to name %s", text, err, want)
		}
	}
}

// TestParseTakesWhatSDNQTakes: a string for a list, null for none, and keys of
// other releases.
func TestParseTakesWhatSDNQTakes(t *testing.T) {
	c := parsed(t, `{"modules_to_not_convert": "lm_head", "modules_dtype_dict": null, "modules_quant_config": null,
		"from_the_future": {"x": [1]}, "svd_rank": 64, "scale_dtype": null}`)
	if _, ok := c.Skips("lm_head.weight"); !ok || c.Check() != nil {
		t.Errorf("got %+v, %v", c, c.Check())
	}
}

// TestCheckRefusesFeatures: a key that asks for what we do not do must not be
// passed over, wherever it stands.
func TestCheckRefusesFeatures(t *testing.T) {
	for _, key := range unsupported {
		one := `"` + key + `": true`
		for _, text := range []string{`{` + one + `}`, `{"modules_quant_config": {"a": {` + one + `}}}`} {
			if err := parsed(t, text).Check(); err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// TestEncodeEqualsSDNQ: the text must be sdnq's but for the order of the skip
// list, which follows a hash there.
func TestEncodeEqualsSDNQ(t *testing.T) {
	for _, name := range []string{"int8", "uint4", "float8_e4m3fn", "uint4_tensor", "mixed"} {
		text, err := os.ReadFile("../../testdata/golden/sdnq/" + name + "/quantization_config.json")
		if err != nil {
			t.Fatal(err)
		}
		c := parsed(t, string(text))
		if got := pyjson.DumpSorted(c.Encode()); strings.TrimSpace(got) != strings.TrimSpace(string(text)) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, text)
		}
	}
}

func TestShape(t *testing.T) {
	c := parsed(t, `{"tensorpress_shapes": {"a": [2, 3], "b": [2], "c": [0, 3], "d": "x", "e": [1, 2, 3], "f": [1, 2.5], "g": [1, 2, 3, 4, 5, 6]}}`)
	if got := c.Shape("a"); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("a: %v", got)
	}
	if got := c.Shape("e"); !slices.Equal(got, []int{1, 2, 3}) { // a convolution's
		t.Errorf("e: %v", got)
	}
	for _, name := range strings.Split("b c d f g none", " ") {
		if got := c.Shape(name); got != nil {
			t.Errorf("%s: %v, want none", name, got)
		}
	}
}

// FuzzConfig: a config that is accepted must come out as what was read, and
// nothing may panic.
func FuzzConfig(f *testing.F) {
	for _, name := range []string{"int8", "mixed", "lists"} {
		text, err := os.ReadFile("../../testdata/golden/sdnq/" + name + "/quantization_config.json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"modules_dtype_dict": {"minimum_6bit": "a*"}, "modules_quant_config": {"a": {"group_size": -2}}, "tensorpress_shapes": {"a": [1, 2]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		if strings.Count(string(text), "*") < 8 { // each star may backtrack over all others
			settings, err := c.For("blocks.0.attn.weight")
			if err == nil && dtype.Lookup(settings.WeightsDtype) == nil {
				t.Errorf("%q gives the dtype %q", text, settings.WeightsDtype)
			}
		}
		if c.Check() != nil {
			return
		}
		dumped := pyjson.Dump(c.Encode())
		again, err := Parse([]byte(dumped))
		if err != nil || pyjson.Dump(again.Encode()) != dumped {
			t.Errorf("%q is written as %s, which reads as %+v, %v", text, dumped, again, err)
		}
	})
}

// TestCheckKeys: a key with a typing error would be a setting that nobody follows.
func TestCheckKeys(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "", `{"weights_dtype": "uint4", "key_of_another_release_of_it": 1}`: "",
		`{"weights_dtyp": "uint4", "group_size": 64}`:                                                               `unknown key "weights_dtyp", did you mean weights_dtype?`,
		`{"weights_dtype": "uint4", "use_hadamrd": true}`:                                                           `unknown key "use_hadamrd", did you mean use_hadamard?`,
		`{"weights_dtype": "int8", "use_static_quantization": true, "is_unsigned": false, "sdnq_version": "0.2.8"}`: "",
		`{"architectures": []}`: `no key is SDNQ's, the first one is "architectures"`,
	} {
		o, err := pyjson.ParseObject([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := CheckKeys(o); err != nil {
			got = err.Error()
		}
		if got != strings.TrimSuffix("SDNQ config: "+want, "SDNQ config: ") {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
