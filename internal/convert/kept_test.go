package convert_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// inFolder is a folder with that file as its weights.
func inFolder(t *testing.T, file string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string][]byte{"model.safetensors": fixture.FileBytes(t, file), "config.json": []byte(`{"model_type": "bert"}`), "words.txt": []byte("words")} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// below are the hashes of all files of a folder.
func below(t *testing.T, folder string) (all []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, name+" "+fixture.FileHash(t, filepath.Join(folder, name)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPartsHaveTheBytesOfOneRun: in parts, and by a run that goes on where a part ended, every
// file is what one run makes it, whatever passes a format takes and wherever settings and the
// source come from.
func TestPartsHaveTheBytesOfOneRun(t *testing.T) {
	t.Parallel()
	model, adapter := adapted(t)
	folder := inFolder(t, model)
	moments, _ := momentsFor(t, map[string]int{"a": 512, "b": 384, "e": 384})
	quantized := inFolder(t, fixture.Quantized(t, model, tensorpress.Options{Layout: "comfy", Keep: []string{"^g"}, Layer: tensorpress.Settings{Dtype: "int8_tensorwise"}}))
	like := fixture.Quantized(t, model, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int6"}, Rules: fixture.Rules("^b=uint3")})
	type subject struct {
		source files.Source
		o      tensorpress.Options
	}
	cases := map[string]subject{
		"adapter":                {files.Dir(folder), tensorpress.Options{Lora: []string{adapter + "=0.5"}, Layer: tensorpress.Settings{Dtype: "int5", SVDRank: new(4)}}},
		"importance":             {files.Dir(folder), tensorpress.Options{Importance: moments, Layer: tensorpress.Settings{Dtype: "uint4", Search: new(true)}}},
		"like":                   {files.Dir(folder), tensorpress.Options{Like: files.Dir(like)}},
		"no disk":                {files.FS(os.DirFS(folder)), tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}}},
		"kept as it is stored":   {files.Dir(quantized), tensorpress.Options{Layout: "comfy", Only: []string{"^g"}, Layer: tensorpress.Settings{Dtype: "mxfp8"}}},
		"quantized again":        {files.Dir(quantized), tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}}},
		"other names":            {files.Dir(inFolder(t, smallFlux(t, false))), tensorpress.Options{Preset: "none", Layer: tensorpress.Settings{Dtype: "int8"}, Names: "diffusers"}},
		"metadata, and nothing":  {files.Dir(folder), tensorpress.Options{Layout: "comfy", Keep: []string{"."}}},
		"stochastic rounding":    {files.Dir(folder), tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int8", StochasticRounding: new(true)}}},
		"header and description": {files.Dir(folder), tensorpress.Options{Layout: "comfy", QuantizationMetadata: true, Layer: tensorpress.Settings{Dtype: "nvfp4"}}},
	}
	for _, way := range ways {
		cases[fmt.Sprintf("%s %s %v", way.layout, way.Dtype, way.Scale)] = subject{files.Dir(folder), tensorpress.Options{Layout: way.layout, Layer: way.Settings, Conv: way.layout == "sdnq"}}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			at := func(name string) files.Dir { return files.Dir(filepath.Join(dir, name)) }
			o := c.o
			o.ShardSize = 90_000
			one, err := tensorpress.Quantize(t.Context(), c.source, at("one"), o)
			if err != nil {
				t.Fatal(err)
			}
			want := below(t, string(at("one")))
			if len(one.Files) < 4 {
				t.Fatalf("%d shards are too few", len(one.Files))
			}
			var layers []string
			for _, part := range []int{3, 1, 2} {
				o.Part, o.Parts, o.Threads = part, 3, part
				r, err := tensorpress.Quantize(t.Context(), c.source, at("parts"), o)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range r.Layers {
					layers = append(layers, l.Name)
				}
			}
			if len(layers) != len(one.Layers) {
				t.Errorf("the parts have %d layers, one run %d", len(layers), len(one.Layers))
			}
			f, err := tensorpress.Finish(t.Context(), at("parts"), tensorpress.FinishOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := below(t, string(at("parts"))); !slices.Equal(got, want) || len(f.Files) != len(want) {
				t.Errorf("in parts: %v, want %v", got, want)
			}
			o.Part, o.Parts = 2, 3
			if _, err := tensorpress.Quantize(t.Context(), c.source, at("on"), o); err != nil {
				t.Fatal(err)
			}
			o.Part, o.Parts, o.Resume = 0, 0, true
			var last int64
			o.Progress = func(done, total int64) {
				if done < last || done > total || total != one.BytesIn {
					t.Errorf("%d of %d after %d, want up to %d", done, total, last, one.BytesIn)
				}
				last = done
			}
			r, err := tensorpress.Quantize(t.Context(), c.source, at("on"), o)
			if err != nil {
				t.Fatal(err)
			}
			if got := below(t, string(at("on"))); !slices.Equal(got, want) {
				t.Errorf("by a run that goes on: %v, want %v", got, want)
			}
			if !slices.ContainsFunc(r.Shards.Files, func(s report.Shard) bool { return s.Kept }) || last != one.BytesIn {
				t.Errorf("nothing was taken, or %d of %d bytes were counted", last, one.BytesIn)
			}
			if got := fixture.Left(t, dir); got != "on one parts" {
				t.Errorf("left are %s", got)
			}
		})
	}
}

// TestNotFinishedBeforeItIsChecked: a shard whose values turn out not to be finite, which is
// found after they are copied, must not count as finished.
func TestNotFinishedBeforeItIsChecked(t *testing.T) {
	// Several tiles, the last of which is not finite, and scales so many that they are written
	// by themselves, before any tile is looked at: without a hold the shard is whole then.
	const rows = 65536
	model := fixture.Save(t, "model.safetensors", nil, part("b.weight", 0.02, rows, 16), part("c.weight", 0.02, 64, 64), part("g.weight", 0.02, 128, 256))
	quantized := fixture.Quantized(t, model, tensorpress.Options{Layout: "comfy", Only: []string{"^b"}, Layer: tensorpress.Settings{Dtype: "int8_tensorwise"}})
	fixture.Patched(t, quantized, "b.weight_scale", 4*(rows-1), []byte{0, 0, 0xc0, 0x7f}) // NaN
	dest := filepath.Join(t.TempDir(), "out")
	o := tensorpress.Options{Layout: "comfy", Only: []string{"^g"}, Layer: tensorpress.Settings{Dtype: "mxfp8"}, ShardSize: 90_000, Resume: true, Threads: 1}
	for range 5 {
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(inFolder(t, quantized)), files.Dir(dest), o); !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), "b") {
			t.Fatalf("NaN: %v", err)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(dest), ".out.parts", ".tensorpress")); err != nil {
			t.Fatal(err)
		}
		for _, line := range below(t, filepath.Join(filepath.Dir(dest), ".out.parts")) {
			name, _, _ := strings.Cut(line, " ")
			if filepath.Ext(name) != ".safetensors" {
				continue
			}
			f, err := safetensors.Open(filepath.Join(filepath.Dir(dest), ".out.parts", name))
			if err != nil {
				t.Fatal(err)
			}
			if _, has := f.Header().Lookup("b.weight"); has {
				t.Errorf("%s is finished, and not finite", name)
			}
			f.Close()
		}
		if err := os.RemoveAll(filepath.Join(filepath.Dir(dest), ".out.parts")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPartsInterrupted: a part whose run is cancelled leaves nothing but what is finished.
func TestPartsInterrupted(t *testing.T) {
	model, _ := adapted(t)
	folder, dir := inFolder(t, model), t.TempDir()
	dest := files.Dir(filepath.Join(dir, "out"))
	o := tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4", SVDRank: new(8)}, ShardSize: 90_000, Resume: true, Threads: 1}
	for range 8 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		o.Progress = func(int64, int64) {
			if n++; n == 2 {
				cancel()
			}
		}
		_, err := tensorpress.Quantize(ctx, files.Dir(folder), dest, o)
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err == nil {
			break
		}
		drafts, _ := filepath.Glob(filepath.Join(dir, ".out.parts", ".tensorpress", "*.partial*"))
		if len(drafts) > 0 {
			t.Errorf("left are %v", drafts)
		}
	}
	o.Progress = nil
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(folder), dest, o); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	o.Resume = false
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(folder), files.Dir(filepath.Join(dir, "one")), o); err != nil {
		t.Fatal(err)
	}
	if got, want := below(t, string(dest)), below(t, filepath.Join(dir, "one")); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// opening counts how often a file of a source is opened.
type opening struct {
	files.Source
	name  string
	times *atomic.Int64
}

func (o opening) Open(ctx context.Context, name string) (files.File, error) {
	if name == o.name {
		o.times.Add(1)
	}
	return o.Source.Open(ctx, name)
}

// TestListedOnce: what stands beside a model's weights is gone through once for a plan, of a
// part as of all of it: of a large model an index is long.
func TestListedOnce(t *testing.T) {
	model, _ := adapted(t)
	folder := inFolder(t, model)
	if err := os.WriteFile(filepath.Join(folder, "words.txt"), []byte("words"), 0o666); err != nil {
		t.Fatal(err)
	}
	opens := func(o tensorpress.Options) int64 {
		o.Layer, o.ShardSize = tensorpress.Settings{Dtype: "uint4"}, 90_000
		from := opening{files.Dir(folder), "words.txt", new(atomic.Int64)}
		if _, err := tensorpress.Plan(t.Context(), from, files.Dir(filepath.Join(t.TempDir(), "out")), o); err != nil {
			t.Fatal(err)
		}
		return from.times.Load()
	}
	if one, part := opens(tensorpress.Options{}), opens(tensorpress.Options{Part: 1, Parts: 2}); one == 0 || part > one {
		t.Errorf("the plan of a part opens a file beside the weights %d times, that of all %d times", part, one)
	}
}
