package tensorpress_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
)

// say adds a setting by the name of its flag.
func say(s *tensorpress.Settings, flag string, v any) {
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
	quantized := fixture.Quantized(t, plain, tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}})
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	for name, call := range map[string]func() error{
		"Quantize": func() error {
			_, err := tensorpress.Quantize(ctx, files.Dir(plain), files.Dir(dest), tensorpress.Options{})
			return err
		},
		"Plan": func() error {
			_, err := tensorpress.Plan(ctx, files.Dir(plain), nil, tensorpress.Options{})
			return err
		},
		"Dequantize": func() error {
			_, err := tensorpress.Dequantize(ctx, files.Dir(quantized), files.Dir(dest), tensorpress.DequantizeOptions{})
			return err
		},
		"PlanDequantize": func() error {
			_, err := tensorpress.PlanDequantize(ctx, files.Dir(quantized), nil, tensorpress.DequantizeOptions{})
			return err
		},
		"Transcode": func() error {
			_, err := tensorpress.Transcode(ctx, files.Dir(quantized), files.Dir(dest), tensorpress.TranscodeOptions{Layout: "sdnq"})
			return err
		},
		"PlanTranscode": func() error {
			_, err := tensorpress.PlanTranscode(ctx, files.Dir(quantized), nil, tensorpress.TranscodeOptions{Layout: "sdnq"})
			return err
		},
		"Migrate": func() error {
			_, err := tensorpress.Migrate(ctx, files.Dir(quantized), files.Dir(dest), tensorpress.MigrateOptions{InputScale: true})
			return err
		},
		"PlanMigrate": func() error {
			_, err := tensorpress.PlanMigrate(ctx, files.Dir(quantized), nil, tensorpress.MigrateOptions{InputScale: true})
			return err
		},
		"Verify": func() error {
			_, err := tensorpress.Verify(ctx, files.Dir(quantized), tensorpress.VerifyOptions{})
			return err
		},
		"Inspect": func() error { _, err := tensorpress.Inspect(ctx, files.Dir(quantized)); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that it was cancelled", name, err)
		}
	}
}

// TestPlanDequantize: a plan says what the call does, and writes nothing.
func TestPlanDequantize(t *testing.T) {
	source := fixture.Quantized(t, "testdata/minilm.safetensors", tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}})
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	o := tensorpress.DequantizeOptions{Dtype: "f16"}
	planned, err := tensorpress.PlanDequantize(t.Context(), files.Dir(source), files.Dir(dest), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dest); err == nil {
		t.Error("a plan wrote the output")
	}
	done, err := tensorpress.Dequantize(t.Context(), files.Dir(source), files.Dir(dest), o)
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
	same := []tensorpress.Rule{
		{Pattern: `query`, Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(32), Hadamard: new(true)}},
		{Pattern: `embeddings`, Kind: "linear", Layer: tensorpress.Settings{Dtype: "int8"}}, {Pattern: `key`, Keep: true},
	}
	written := fixture.Rules("query=uint4,group-size=32,hadamard", "embeddings=kind=linear,int8", "key=keep")
	for i := range written {
		written[i].Text = ""
	}
	if !reflect.DeepEqual(same, written) {
		t.Errorf("%+v, want %+v", same, written)
	}
	for want, r := range map[string]tensorpress.Rule{
		`pattern "("`: {Pattern: "("}, "keep stands alone": {Pattern: "key", Keep: true, Layer: tensorpress.Settings{Dtype: "int8"}},
		`unknown kind "conv9d"`: {Pattern: "key", Kind: "conv9d"}, "int17": {Pattern: "key", Layer: tensorpress.Settings{Dtype: "int17"}},
		"my rule: ": {Pattern: "nothing", Keep: true, Text: "my rule"},
	} {
		_, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, tensorpress.Options{Rules: []tensorpress.Rule{r}})
		if !errors.Is(err, tensorpress.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
}
