package bundle_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/source"
)

// failing is a store of which nothing can be opened.
type failing struct{ tries *int }

func (failing) String() string { return "failing" }
func (failing) List(context.Context) ([]string, error) {
	return []string{"config.json", "model.safetensors"}, nil
}
func (f failing) Open(context.Context, string) (files.File, error) {
	*f.tries++
	return nil, errors.New("gave up after 8 tries in 40s")
}

// TestFailsOnce: what was tried for long and given up is not tried again, so that an error
// comes in the time that was promised.
func TestFailsOnce(t *testing.T) {
	for _, name := range []string{"", "model.safetensors"} {
		for how, read := range map[string]func(source.Source) error{
			"quantize": func(s source.Source) error { _, err := bundle.ReadModels(s, nil); return err },
			"verify":   func(s source.Source) error { _, err := bundle.ModelsOf(s); return err },
		} {
			tries := 0
			s := files.Source(failing{&tries})
			if name != "" {
				s = files.At(s, name)
			}
			err := read(source.Of(t.Context(), s))
			if name == "" && how == "verify" { // lists alone
				continue
			}
			if err == nil || !strings.Contains(err.Error(), "gave up after 8 tries") || tries != 1 {
				t.Errorf("%s %s: tried %d times: %v", how, name, tries, err)
			}
		}
	}
}

// TestPipeline: of a diffusers pipeline the transformer is quantized as it is
// by itself, and all else is the same file.
func TestPipeline(t *testing.T) {
	source, dest := t.TempDir(), filepath.Join(t.TempDir(), "out")
	if err := os.CopyFS(filepath.Join(source, "transformer"), os.DirFS(fixture.SdnqSource(t, "int8"))); err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"model_index.json":                `{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"], "vae": ["diffusers", "Y"]}`,
		"vae/config.json":                 `{"a": 1}`,
		"vae/model.safetensors":           "weights",
		"scheduler/scheduler_config.json": `{}`,
	}
	for name, text := range texts {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	r, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.Options{MinNumel: fixture.Ptr(8192)})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		if got, err := os.ReadFile(filepath.Join(dest, name)); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	const weights = "diffusion_pytorch_model.safetensors"
	if fixture.FileHash(t, filepath.Join(dest, "transformer", weights)) != fixture.FileHash(t, "../../testdata/golden/sdnq/int8/"+weights) {
		t.Error("the transformer is not what sdnq makes of it")
	}
	if !strings.HasPrefix(r.Layers[0].Name, "transformer/") || r.Layout != "sdnq" {
		t.Errorf("report of %s, layout %s", r.Layers[0].Name, r.Layout)
	}
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(filepath.Join(dest, "x.safetensors")), tensorpress.Options{}); err == nil {
		t.Error("a pipeline went into one file")
	}
}
