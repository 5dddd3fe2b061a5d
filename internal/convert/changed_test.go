package convert_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// changes are what may happen to a file while it is read.
var changes = map[string]func(path string) error{
	"touched":  func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) },
	"shrunk":   func(path string) error { return os.Truncate(path, 1) },
	"removed":  os.Remove,
	"replaced": replaceFile,
}

// replaceFile puts a copy with the same bytes and the same time in a file's place.
func replaceFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	other := path + ".other"
	if err := errors.Join(os.WriteFile(other, data, 0o666), os.Chtimes(other, time.Time{}, info.ModTime())); err != nil {
		return err
	}
	return os.Rename(other, path)
}

// TestChangedSources: a source that changes while it is read makes an output of
// which nobody knows what it is: no command may call that done.
func TestChangedSources(t *testing.T) {
	t.Parallel()
	plain, quantized := fixture.SdnqSource(t, "int8"), filepath.Join(t.TempDir(), "quantized")
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(plain), files.Dir(quantized), tensorpress.Options{MinNumel: fixture.Ptr(8192)}); err != nil {
		t.Fatal(err)
	}
	comfy := filepath.Join(t.TempDir(), "comfy")
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(plain), files.Dir(comfy), tensorpress.Options{Layout: "comfy"}); err != nil {
		t.Fatal(err)
	}
	commands := map[string]struct {
		source string
		run    func(ctx context.Context, source, dest string, r fixture.Resources) error
	}{
		"quantize": {plain, func(ctx context.Context, source, dest string, r fixture.Resources) error {
			_, err := tensorpress.Quantize(ctx, files.Dir(source), files.Dir(dest), tensorpress.Options{MinNumel: fixture.Ptr(8192), Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
			return err
		}},
		"dequantize": {quantized, func(ctx context.Context, source, dest string, r fixture.Resources) error {
			_, err := tensorpress.Dequantize(ctx, files.Dir(source), files.Dir(dest), tensorpress.DequantizeOptions{Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
			return err
		}},
		"transcode": {quantized, func(ctx context.Context, source, dest string, r fixture.Resources) error {
			_, err := tensorpress.Transcode(ctx, files.Dir(source), files.Dir(dest), tensorpress.TranscodeOptions{Layout: "comfy", Rename: true, Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
			return err
		}},
		"migrate": {comfy, func(ctx context.Context, source, dest string, r fixture.Resources) error {
			_, err := tensorpress.Migrate(ctx, files.Dir(source), files.Dir(dest), tensorpress.MigrateOptions{QuantizationMetadata: true, Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
			return err
		}},
		"verify": {quantized, func(ctx context.Context, source, dest string, r fixture.Resources) error {
			_, err := tensorpress.Verify(ctx, files.Dir(source), tensorpress.VerifyOptions{Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
			return err
		}},
	}
	for name, command := range commands {
		for how, change := range changes {
			for _, file := range []string{"diffusion_pytorch_model.safetensors", "config.json", "words.txt"} {
				if name == "verify" && file == "words.txt" {
					continue // which it does not read
				}
				t.Run(name+"/"+how+"/"+file, func(t *testing.T) {
					source, dest := t.TempDir(), filepath.Join(t.TempDir(), "dest")
					words := os.WriteFile(filepath.Join(source, "words.txt"), []byte("words"), 0o666)
					if err := errors.Join(words, os.CopyFS(source, os.DirFS(command.source))); err != nil {
						t.Fatal(err)
					}
					checkChanged(t, filepath.Join(source, file), dest, change, func(r fixture.Resources) error {
						return command.run(t.Context(), source, dest, r)
					})
				})
			}
		}
	}
}

// checkChanged runs a command during which a file changes.
func checkChanged(t *testing.T, path, dest string, change func(string) error, run func(fixture.Resources) error) {
	t.Helper()
	done := false
	err := run(fixture.Resources{Threads: 1, Progress: func(_, _ int64) {
		if done {
			return
		}
		done = true
		if err := change(path); err != nil {
			t.Skip(err) // some systems refuse while a file is open
		}
	}})
	if !done || !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), filepath.Base(path)) {
		t.Errorf("changed %v: got %v, want an error of the source that names the file", done, err)
	}
	if _, err := os.Stat(dest); err == nil {
		t.Error("there is an output")
	}
}

// TestChangedSourceOfCTQ: nor may convert_to_quant's command line.
func TestChangedSourceOfCTQ(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{256, 256}})
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	checkChanged(t, source, dest, replaceFile, func(r fixture.Resources) error {
		return runCTQ(t.Context(), []string{"-i", source, "-o", dest, "--simple", "--int8"}, r)
	})
}

// TestChangedPipeline: nor may files that are only copied change.
func TestChangedPipeline(t *testing.T) {
	for _, file := range []string{"model_index.json", "vae/config.json", "transformer/config.json"} {
		source, dest := t.TempDir(), filepath.Join(t.TempDir(), "out")
		index := `{"_class_name": "P", "transformer": ["diffusers", "X"], "vae": ["diffusers", "Y"]}`
		err := errors.Join(
			os.CopyFS(filepath.Join(source, "transformer"), os.DirFS(fixture.SdnqSource(t, "int8"))), os.Mkdir(filepath.Join(source, "vae"), 0o777),
			os.WriteFile(filepath.Join(source, "model_index.json"), []byte(index), 0o666), os.WriteFile(filepath.Join(source, "vae/config.json"), []byte("{}"), 0o666),
		)
		if err != nil {
			t.Fatal(err)
		}
		checkChanged(t, filepath.Join(source, file), dest, replaceFile, func(r fixture.Resources) error {
			_, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.Options{Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
			return err
		})
	}
}
