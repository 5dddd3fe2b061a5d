package tensorpress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
)

// Resources are what the options of every call have in common.
type Resources = engine.Resources

// rules are --set's, in their words.
func rules(texts ...string) []Rule {
	var all []Rule
	for _, text := range texts {
		r, err := plan.ParseRule(text)
		if err != nil {
			panic(err)
		}
		all = append(all, r)
	}
	return all
}

// also returns settings with what more says in its place.
func also(s, more Settings) Settings {
	to, from := reflect.ValueOf(&s).Elem(), reflect.ValueOf(more)
	for i := range from.NumField() {
		if v := from.Field(i); !v.IsZero() {
			to.Field(i).Set(v)
		}
	}
	return s
}

// say adds a setting by the name of its flag.
func say(s *Settings, flag string, v any) {
	if err := codec.Parse(s, flag, fmt.Sprint(v), true); err != nil {
		panic(err)
	}
}

// TestEveryCallHearsItsContext: a program that is asked to stop would wait for
// headers of a disk that is far away.
func TestEveryCallHearsItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	plain := "testdata/minilm.safetensors"
	quantized := quantized(t, plain, Options{Layer: Settings{Dtype: "uint4"}})
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	for name, call := range map[string]func() error{
		"Quantize": func() error { _, err := Quantize(ctx, files.Dir(plain), files.Dir(dest), Options{}); return err },
		"Plan":     func() error { _, err := Plan(ctx, files.Dir(plain), nil, Options{}); return err },
		"Dequantize": func() error {
			_, err := Dequantize(ctx, files.Dir(quantized), files.Dir(dest), DequantizeOptions{})
			return err
		},
		"PlanDequantize": func() error {
			_, err := PlanDequantize(ctx, files.Dir(quantized), nil, DequantizeOptions{})
			return err
		},
		"Transcode": func() error {
			_, err := Transcode(ctx, files.Dir(quantized), files.Dir(dest), TranscodeOptions{Layout: "sdnq"})
			return err
		},
		"PlanTranscode": func() error {
			_, err := PlanTranscode(ctx, files.Dir(quantized), nil, TranscodeOptions{Layout: "sdnq"})
			return err
		},
		"Migrate": func() error {
			_, err := Migrate(ctx, files.Dir(quantized), files.Dir(dest), MigrateOptions{InputScale: true})
			return err
		},
		"PlanMigrate": func() error {
			_, err := PlanMigrate(ctx, files.Dir(quantized), nil, MigrateOptions{InputScale: true})
			return err
		},
		"Verify":  func() error { _, err := Verify(ctx, files.Dir(quantized), VerifyOptions{}); return err },
		"Inspect": func() error { _, err := Inspect(ctx, files.Dir(quantized)); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that it was cancelled", name, err)
		}
	}
}

// TestPlanDequantize: a plan says what the call does, and writes nothing.
func TestPlanDequantize(t *testing.T) {
	source := quantized(t, "testdata/minilm.safetensors", Options{Layer: Settings{Dtype: "uint4"}})
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	o := DequantizeOptions{Dtype: "f16"}
	planned, err := PlanDequantize(t.Context(), files.Dir(source), files.Dir(dest), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dest); err == nil {
		t.Error("a plan wrote the output")
	}
	done, err := Dequantize(t.Context(), files.Dir(source), files.Dir(dest), o)
	if err != nil {
		t.Fatal(err)
	}
	done.Seconds = 0
	if got, want := fmt.Sprintf("%+v", planned), fmt.Sprintf("%+v", done); got != want || len(done.Layers) != 10 {
		t.Errorf("planned %s\ndone %s", got, want)
	}
}

// TestRulesOfTheAPI: what is said in Go is what --set says, and what cannot be is
// refused with the rule's name.
func TestRulesOfTheAPI(t *testing.T) {
	source := "testdata/minilm.safetensors"
	same := []Rule{
		{Pattern: `query`, Layer: Settings{Dtype: "uint4", GroupSize: new(32), Hadamard: new(true)}},
		{Pattern: `embeddings`, Kind: "linear", Layer: Settings{Dtype: "int8"}}, {Pattern: `key`, Keep: true},
	}
	written := rules("query=uint4,group-size=32,hadamard", "embeddings=kind=linear,int8", "key=keep")
	for i := range written {
		written[i].Text = ""
	}
	if !reflect.DeepEqual(same, written) {
		t.Errorf("%+v, want %+v", same, written)
	}
	for want, r := range map[string]Rule{
		`pattern "("`: {Pattern: "("}, "keep stands alone": {Pattern: "key", Keep: true, Layer: Settings{Dtype: "int8"}},
		`unknown kind "conv9d"`: {Pattern: "key", Kind: "conv9d"}, "int17": {Pattern: "key", Layer: Settings{Dtype: "int17"}},
		"my rule: ": {Pattern: "nothing", Keep: true, Text: "my rule"},
	} {
		_, err := Plan(t.Context(), files.Dir(source), nil, Options{Rules: []Rule{r}})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
}
