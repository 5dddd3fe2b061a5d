package codec

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/storage"
)

// TestMenu: an entry is what was typed, and comes back from its own words.
func TestMenu(t *testing.T) {
	menu, err := ParseMenu("uint4:group-size=32:hadamard, sdnq:float8_e4m3fn:scale-dtype=uint8,nvfp4,keep")
	if err != nil || len(menu) != 4 || !menu[3].Keep {
		t.Fatal(menu, err)
	}
	for i, want := range []string{"uint4,group-size=32,hadamard", "sdnq:float8_e4m3fn,scale-dtype=uint8", "nvfp4", ""} {
		if got := Words(menu[i].Layer, ","); got != want {
			t.Errorf("entry %d is %s, want %s", i, got, want)
		}
	}
	for text, want := range map[string]string{
		"":                         "unknown dtype",
		"int8,,int4":               "unknown dtype",
		"int8:group-size":          "is not a whole number",
		"int8:grup-size=3":         "did you mean group-size?",
		"int8:dtype=int4":          "two dtypes, int8 and int4",
		"keep:hadamard":            "unknown dtype",
		"sdnq:":                    "unknown dtype",
		"int8:hadamard=perhaps":    "want true or false",
		"uint4:group-size=64:keep": "unknown setting",
	} {
		if _, err := ParseMenu(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestWordsComeBack: a lock says every setting so that it is understood.
func TestWordsComeBack(t *testing.T) {
	for _, f := range fields {
		g := storage.Settings{Dtype: "uint4"}
		if err := Parse(&g, f.Flag, example(f), true); err != nil {
			t.Fatal(err)
		}
		if f.Flag == "dtype" {
			g.Dtype = "int5"
		}
		menu, err := ParseMenu(Words(g, ":"))
		if err != nil || len(menu) != 1 || Words(menu[0].Layer, ",") != Words(g, ",") {
			t.Errorf("%s: %v, %v, want %v", f.Flag, menu, err, g)
		}
	}
}

// TestAgainst: a layer with a rule of its own is stored as if nothing were said of the
// others.
func TestAgainst(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	dtypes := []string{"uint4", "int8", "nvfp4", "int8_tensorwise", "float8_e4m3fn", "asym_w4a8_int8", "mxfp8"}
	compared := 0
	for range 20000 {
		own, others := said(r, dtypes), said(r, dtypes)
		f := formatFor(t, own)
		if f == nil || formatFor(t, others) == nil {
			continue
		}
		rule, err := f.Against(others, own)
		if err != nil {
			continue // said in a message
		}
		compared++
		want := Default().With(own)
		got := f.Without(Default().With(others).With(rule), func(one *Field) bool { return one.Said(&rule) })
		for _, name := range []*string{&got.ScaleDtype, &got.ZeroPointDtype, &want.ScaleDtype, &want.ZeroPointDtype} {
			if *name == "none" {
				*name = ""
			}
		}
		if got.Scale = ""; f != formatFor(t, rule) {
			t.Fatalf("%v against %v is another format", own, others)
		}
		want.Scale = ""
		got.NoRank = want.NoRank // 0 takes back what others say
		if got != want {
			t.Fatalf("%v against %v: %v\n%+v, want\n%+v", own, others, rule, got, want)
		}
	}
	if compared < 300 {
		t.Errorf("only %d rules were compared", compared)
	}
}

// said is a dtype with some settings.
func said(r *rand.Rand, dtypes []string) (g storage.Settings) {
	g.Dtype = dtypes[r.IntN(len(dtypes))]
	for _, f := range fields {
		if f.Flag == "dtype" || r.IntN(12) > 0 {
			continue
		}
		text := example(f)
		switch f.Flag {
		case "scale":
			text = "row"
		case "scale-dtype", "zero-point-dtype":
			text = "uint8"
		}
		if Parse(&g, f.Flag, text, true) != nil {
			panic(f.Flag)
		}
	}
	return g
}

// formatFor is the format of settings that it takes, nil for others.
func formatFor(t *testing.T, g storage.Settings) *Format {
	f, err := Resolve(g.Dtype, false)
	if err != nil {
		t.Fatal(err)
	}
	f = f.Scaled(g.Scale)
	for i := range fields {
		if one := &fields[i]; one.Said(&g) && !f.takes(one) {
			return nil
		}
	}
	if g.Scale != "" && f.Scales[g.Scale] == "" {
		return nil
	}
	return f
}
