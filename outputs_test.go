package tensorpress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// manySource is a model with weights of every size, a bank of experts and kept tensors.
func manySource(t *testing.T) string {
	return fixture.Save(t, "model.safetensors", nil,
		fixture.Weights{Name: "a.norm.weight", Dtype: safetensors.F32, Shape: []int{512}},
		fixture.Weights{Name: "b.large.weight", Dtype: safetensors.BF16, Shape: []int{1536, 2048}},
		fixture.Weights{Name: "c.small.weight", Dtype: safetensors.F16, Shape: []int{64, 128}},
		fixture.Weights{Name: "d.small.weight", Dtype: safetensors.F16, Shape: []int{64, 128}},
		fixture.Weights{Name: "e.mlp.experts.gate_up_proj", Dtype: safetensors.BF16, Shape: []int{4, 256, 512}},
		fixture.Weights{Name: "f.table", Dtype: safetensors.F16, Shape: []int{2048, 512}},
		fixture.Weights{Name: "g.other.weight", Dtype: safetensors.F32, Shape: []int{512, 768}},
	)
}

// manyWays are options for outputs: formats with one pass and with several, of both layouts.
func manyWays() map[string]tensorpress.Options {
	return map[string]tensorpress.Options{
		"uint4":   {Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4"}},
		"fp8":     {Layout: "comfy", Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}, Preset: "none"},
		"nvfp4":   {Layout: "comfy", Layer: tensorpress.Settings{Dtype: "nvfp4"}, Keep: []string{"other"}},
		"mxfp8":   {Layout: "comfy", Layer: tensorpress.Settings{Dtype: "mxfp8"}},
		"rank":    {Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int4", SVDRank: new(8)}},
		"table":   {Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint3", Codebook: new(true), Hadamard: new(true)}},
		"kept":    {Layout: "sdnq", Keep: []string{"large", "experts"}},
		"rotated": {Layout: "comfy", Layer: tensorpress.Settings{Dtype: "int8_tensorwise", ConvRot: new(true)}},
	}
}

// TestQuantizeMany: every output has the bytes that it has by itself.
func TestQuantizeMany(t *testing.T) {
	source := manySource(t)
	want := map[string]string{}
	dir := t.TempDir()
	for name, o := range manyWays() {
		path := filepath.Join(dir, name+".safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(path), o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want[name] = fixture.FileHash(t, path)
	}
	for _, c := range []struct {
		threads int
		memory  int64
		alone   bool
	}{{1, 36 << 20, false}, {3, 0, true}, {4, 48 << 20, true}} {
		dir := t.TempDir()
		var outputs []tensorpress.Output
		for name, o := range manyWays() {
			outputs = append(outputs, tensorpress.Output{Dest: files.Dir(filepath.Join(dir, name+".safetensors")), Options: o})
		}
		r, err := tensorpress.QuantizeMany(t.Context(), files.Dir(source), outputs, tensorpress.ManyOptions{Threads: c.threads, Memory: c.memory, KeepGoing: c.alone})
		if err != nil || len(r.Outputs) != len(want) {
			t.Fatalf("%+v: %v", c, err)
		}
		for i, one := range r.Outputs {
			name := strings.TrimSuffix(filepath.Base(one.Dest), ".safetensors")
			if one.Dest != outputs[i].Dest.String() || fixture.FileHash(t, one.Dest) != want[name] {
				t.Errorf("%+v: %s has other bytes than by itself", c, one.Dest)
			}
		}
	}
}

// counted counts the bytes that are read of a source.
type counted struct {
	files.Source
	bytes *atomic.Int64
}

type countedFile struct {
	files.File
	bytes *atomic.Int64
}

func (c counted) Open(ctx context.Context, name string) (files.File, error) {
	f, err := c.Source.Open(ctx, name)
	return countedFile{f, c.bytes}, err
}

func (f countedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.bytes.Add(int64(n))
	return n, err
}

// TestManyReadOnce: what one output has read of a source that is no path, the others need
// not read again.
func TestManyReadOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 100 MB eight times")
	}
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{8192, 4096}}, // 64 MiB, more than is held
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{2048, 2048}},
		{Name: "c.weight", Dtype: safetensors.BF16, Shape: []int{4096, 2048}},
	})
	info, err := os.Stat(source)
	if err != nil {
		t.Fatal(err)
	}
	once := []string{"int8_tensorwise", "mxfp8", "float8_e4m3fn_rowwise", "sdnq:uint4"}
	twice := []string{"float8_e4m3fn", "nvfp4", "int8_tensorwise", "sdnq:int8"}
	for most, dtypes := range map[float64][]string{1.02: once, 2.02: twice} {
		from := counted{files.FS(os.DirFS(filepath.Dir(source))), new(atomic.Int64)}
		var outputs []tensorpress.Output
		for i, dtype := range dtypes {
			outputs = append(outputs, tensorpress.Output{
				Dest:    files.Dir(filepath.Join(t.TempDir(), fmt.Sprint(i)+".safetensors")),
				Options: tensorpress.Options{Layout: "comfy", Preset: "none", Layer: tensorpress.Settings{Dtype: dtype}},
			})
		}
		if _, err := tensorpress.QuantizeMany(t.Context(), files.At(from, filepath.Base(source)), outputs, tensorpress.ManyOptions{Threads: 4}); err != nil {
			t.Fatal(err)
		}
		share := float64(from.bytes.Load()) / float64(info.Size())
		t.Logf("%v: %.3f times the source", dtypes, share)
		if share < 1 || share > most {
			t.Errorf("%v: read %.3f times the source, want at most %.2f", dtypes, share, most)
		}
	}
}

// failing is an output whose writing or commit fails.
type failing struct {
	at     int64 // offset from which writing fails, 0 for none
	commit bool
	ended  *atomic.Int64 // how often it was put in place and not taken back
}

func (f failing) String() string { return "store/failing.safetensors" }

func (f failing) Begin(context.Context, bool) (files.Output, error) { return f, nil }

func (f failing) Create(string, int64) (io.WriterAt, error) { return f, nil }

func (f failing) WriteAt(p []byte, off int64) (int, error) {
	if f.at > 0 && off >= f.at {
		return 0, errors.New("the store is full")
	}
	return len(p), nil
}

func (f failing) Commit(context.Context) error {
	if f.commit {
		return errors.New("the store is gone")
	}
	f.ended.Add(1)
	return nil
}

func (f failing) Abort() error { return nil }

// TestManyAllOrNothing: where one output fails, none is there, or with KeepGoing all
// others are.
func TestManyAllOrNothing(t *testing.T) {
	source := manySource(t)
	spoilt := fixture.Save(t, "model.safetensors", nil,
		fixture.Weights{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{1024, 512}},
		fixture.Weights{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{1024, 512}},
	)
	fixture.Patched(t, spoilt, "b.weight", 4*1000, fixture.Float32Bytes(float32(math.NaN())))
	cases := map[string]struct {
		source string
		bad    tensorpress.Output
		status error // nil for that of the machine
	}{
		"writing":  {source: source, bad: tensorpress.Output{Dest: failing{at: 100 << 10, ended: new(atomic.Int64)}}},
		"commit":   {source: source, bad: tensorpress.Output{Dest: failing{commit: true, ended: new(atomic.Int64)}}},
		"dtype":    {source: source, bad: tensorpress.Output{Options: tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int99"}}}, status: tensorpress.ErrUsage},
		"source":   {source: spoilt, bad: tensorpress.Output{Options: tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int8"}}}, status: tensorpress.ErrSource},
		"low rank": {source: spoilt, bad: tensorpress.Output{Options: tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int4", SVDRank: new(4)}}}, status: tensorpress.ErrSource},
		"passes":   {source: spoilt, bad: tensorpress.Output{Options: tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4", Codebook: new(true)}}}, status: tensorpress.ErrSource},
		"place":    {source: source, bad: tensorpress.Output{Options: tensorpress.Options{Keep: []string{"("}}}, status: tensorpress.ErrUsage},
	}
	for name, c := range cases {
		for _, alone := range []bool{false, true} {
			dir := t.TempDir()
			if c.bad.Dest == nil || strings.HasPrefix(c.bad.Dest.String(), os.TempDir()) {
				c.bad.Dest = files.Dir(filepath.Join(dir, "bad.safetensors"))
			}
			good := tensorpress.Options{Keep: []string{"b\\.weight"}}
			outputs := []tensorpress.Output{
				{Dest: files.Dir(filepath.Join(dir, "first.safetensors")), Options: good}, c.bad,
				{Dest: files.Dir(filepath.Join(dir, "last.safetensors")), Options: good},
			}
			r, err := tensorpress.QuantizeMany(t.Context(), files.Dir(c.source), outputs, tensorpress.ManyOptions{KeepGoing: alone, Threads: 2})
			if err == nil || c.status != nil && !errors.Is(err, c.status) {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if !strings.Contains(err.Error(), c.bad.Dest.String()) {
				t.Errorf("%s: %v does not name the output", name, err)
			}
			left, want := fixture.Left(t, dir), ""
			if alone {
				want = "first.safetensors last.safetensors"
			}
			if left != want {
				t.Errorf("%s: there are %q, want %q", name, left, want)
			}
			if alone && (r == nil || len(r.Outputs) != 2 || len(r.Failed) != 1) {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

// TestManyApart: destinations that are in each other's way are refused before anything is
// read.
func TestManyApart(t *testing.T) {
	dir := t.TempDir()
	for _, c := range [][2]string{{"out", "out"}, {"out", "out/inner"}, {"out/inner", "./out/"}, {"a.safetensors", "b/../a.safetensors"}} {
		outputs := []tensorpress.Output{{Dest: files.Dir(filepath.Join(dir, c[0]))}, {Dest: files.Dir(dir + "/" + c[1])}}
		for _, do := range []func(context.Context, files.Source, []tensorpress.Output, tensorpress.ManyOptions) (*tensorpress.Outputs, error){tensorpress.QuantizeMany, tensorpress.PlanMany} {
			_, err := do(t.Context(), files.Dir("/no/source"), outputs, tensorpress.ManyOptions{KeepGoing: true})
			if !errors.Is(err, tensorpress.ErrUsage) || !strings.Contains(err.Error(), "destination") {
				t.Errorf("%q: %v", c, err)
			}
		}
	}
}

// TestManyReplaces: where the last of several outputs cannot be put in its place, the
// older ones of all others are there again.
func TestManyReplaces(t *testing.T) {
	source := manySource(t)
	dir := t.TempDir()
	old, folder := filepath.Join(dir, "old.safetensors"), filepath.Join(dir, "new.safetensors")
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(old), tensorpress.Options{}); err != nil {
		t.Fatal(err)
	}
	was := fixture.FileHash(t, old)
	outputs := []tensorpress.Output{
		{Dest: failing{commit: true, ended: new(atomic.Int64)}},
		{Dest: files.Dir(old), Options: tensorpress.Options{Force: true, Keep: []string{"large"}}},
		{Dest: files.Dir(folder)},
	}
	if _, err := tensorpress.QuantizeMany(t.Context(), files.Dir(source), outputs, tensorpress.ManyOptions{}); err == nil {
		t.Fatal("no error")
	}
	if fixture.FileHash(t, old) != was || fixture.Left(t, dir) != "old.safetensors" {
		t.Errorf("there are %s", fixture.Left(t, dir))
	}
	outputs[0].Dest = failing{ended: new(atomic.Int64)}
	if _, err := tensorpress.QuantizeMany(t.Context(), files.Dir(source), outputs, tensorpress.ManyOptions{}); err != nil {
		t.Fatal(err)
	}
	if fixture.FileHash(t, old) == was || fixture.Left(t, dir) != "new.safetensors old.safetensors" {
		t.Errorf("there are %s", fixture.Left(t, dir))
	}
}

// TestManyInterrupted: nothing is left.
func TestManyInterrupted(t *testing.T) {
	source := manySource(t)
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var outputs []tensorpress.Output
	for i := range 3 {
		outputs = append(outputs, tensorpress.Output{Dest: files.Dir(filepath.Join(dir, fmt.Sprint(i)+".safetensors"))})
	}
	_, err := tensorpress.QuantizeMany(ctx, files.Dir(source), outputs, tensorpress.ManyOptions{KeepGoing: true, Progress: func(done, total int64) {
		if done > total/2 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) || fixture.Left(t, dir) != "" {
		t.Errorf("%v, there are %q", err, fixture.Left(t, dir))
	}
}
