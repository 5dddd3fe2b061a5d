package preset

import (
	"slices"
	"strings"
	"testing"
)

func TestWrapped(t *testing.T) {
	for names, want := range map[string]string{
		"_orig_mod.a.weight _orig_mod.b.weight":          "2 of 2 names have _orig_mod. in them, as _orig_mod.a.weight, which loaders do not know: `MigrateOptions.StripPrefixes` _orig_mod. takes it off",
		"a.weight module.b.weight":                       "1 of 2 names have module. in them",
		"module._orig_mod.a.weight":                      "`MigrateOptions.StripPrefixes` module. `StripPrefixes` _orig_mod. takes",
		"model.layers.0._orig_mod.self_attn.q.weight":    "`MigrateOptions.StripPrefixes` _orig_mod. takes",
		"a.weight encoder.module.b.weight my_module.c.b": "",
	} {
		got := Wrapped(slices.Values(strings.Fields(names)))
		if !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", names, got, want)
		}
	}
}

func TestUnwrap(t *testing.T) {
	for _, tt := range []struct{ name, prefixes, want string }{
		{"_orig_mod.a.weight", "_orig_mod.", "a.weight"},
		{"_orig_mod.a.weight", "_orig_mod", "a.weight"},
		{"module._orig_mod.a.weight", "module. _orig_mod.", "a.weight"},
		{"module._orig_mod.a.weight", "module._orig_mod.", "a.weight"},
		{"_orig_mod._orig_mod.a.weight", "_orig_mod.", "a.weight"},
		{"layers.0._orig_mod.q.weight", "_orig_mod.", "layers.0.q.weight"},
		{"a.module.weight", "module.", "a.module.weight"},
		{"model.diffusion_model.a", "model.diffusion_model.", "a"},
		{"b.weight", "module.", "b.weight"},
	} {
		if got := Unwrap(tt.name, strings.Fields(tt.prefixes)); got != tt.want {
			t.Errorf("%s without %s: %s, want %s", tt.name, tt.prefixes, got, tt.want)
		}
	}
}
