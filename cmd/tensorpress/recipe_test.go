package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestRecipePathsAndNumbers: a flag that the recipe treats in a way of its own
// has to exist, or it was renamed and is treated no more.
func TestRecipePathsAndNumbers(t *testing.T) {
	flags := newQuantize().Flags()
	for _, name := range slices.Concat(recipePaths, recipeNumbers) {
		if flags.Lookup(name) == nil && name != "layer-config" {
			t.Errorf("there is no flag --%s", name)
		}
	}
}

// TestRecipeTakesEveryFlag: what --help lists may stand in a recipe.
func TestRecipeTakesEveryFlag(t *testing.T) {
	values := map[string]string{
		"bool": "true", "int": "3", "float64": "0.5", "string": "text", "stringArray": "[a, b]", "SIZE": "64MiB", "MODE": "plain", "SIZE|N%": "60%", "I/N": "3/8",
	}
	newQuantize().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "recipe" || f.Name == "outputs" {
			return
		}
		value, ok := values[f.Value.Type()]
		if !ok {
			t.Errorf("--%s has a value of type %s, which no recipe was tried with", f.Name, f.Value.Type())
		}
		if f.Name == "set" {
			value = "{a: int8}"
		}
		flags := newQuantize().Flags()
		if err := applyRecipe(t, flags, "recipe.yaml", f.Name+": "+value+"\n"); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if !flags.Changed(f.Name) {
			t.Errorf("%s: %s changes nothing", f.Name, value)
		}
	})
}

func applyRecipe(t testing.TB, flags *pflag.FlagSet, name, text string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := flags.Set("recipe", path); err != nil {
		t.Fatal(err)
	}
	return (&recipeFlag{path: path}).apply(flags)
}

// FuzzRecipe: whatever the file holds, there is an answer, and an error is one
// that names it.
func FuzzRecipe(f *testing.F) {
	for _, text := range []string{"dtype: int8\nset: {a: &x {dtype: uint4}, b: *x}", `{"keep": ["a"], "set": [{"b": "int8"}]}`, "a: &a [*a]", "set: &a [*a]", "{", "? [a]: b", "<<: {dtype: int8}"} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, isJSON bool) {
		name := "recipe.yaml"
		if isJSON {
			name = "recipe.json"
		}
		if err := applyRecipe(t, newQuantize().Flags(), name, text); err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
