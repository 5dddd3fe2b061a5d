package tensorpress_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// objects is a store of objects: it lists names, and reads ranges of bytes, which it
// counts.
type objects struct {
	content map[string][]byte
	read    func(ctx context.Context, before int) error // called for each range of a file, with how many there were
	version func(name string) string                    // nil for objects without one

	mu     sync.Mutex
	bytes  map[string]int64
	ranges map[string]int
	opened map[string]int // that are not closed
}

func newObjects(content map[string][]byte) *objects {
	return &objects{content: content, bytes: map[string]int64{}, ranges: map[string]int{}, opened: map[string]int{}}
}

func (o *objects) String() string { return "store://bucket/model" }

func (o *objects) List(context.Context) ([]string, error) {
	return slices.Collect(maps.Keys(o.content)), nil
}

func (o *objects) Open(ctx context.Context, name string) (files.File, error) {
	one := &object{o, ctx, name, o.content[name]}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened[name]++
	if o.version != nil {
		return versioned{one, o.version(name)}, nil
	}
	return one, nil
}

type object struct {
	store *objects
	ctx   context.Context
	name  string
	data  []byte
}

type versioned struct {
	*object
	version string
}

func (v versioned) Version() string { return v.version }

func (o *object) Size() int64 { return int64(len(o.data)) }

func (o *object) Close() error {
	o.store.mu.Lock()
	defer o.store.mu.Unlock()
	o.store.opened[o.name]--
	return nil
}

func (o *object) ReadAt(p []byte, off int64) (int, error) {
	o.store.mu.Lock()
	before := o.store.ranges[o.name]
	o.store.bytes[o.name] += int64(len(p))
	o.store.ranges[o.name]++
	o.store.mu.Unlock()
	if o.store.read != nil {
		if err := o.store.read(o.ctx, before); err != nil {
			return 0, err
		}
	}
	return bytes.NewReader(o.data).ReadAt(p, off)
}

// contents are the files below a folder, or the one that a path is.
func contents(t *testing.T, path string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	names, err := files.Dir(path).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	folder := path
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		folder = filepath.Dir(path)
	}
	for _, name := range names {
		all[name] = fixture.FileBytes(t, filepath.Join(folder, name))
	}
	return all
}

// equalFiles fails where two outputs are not the same files.
func equalFiles(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Errorf("got files %v, want %v", g, w)
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("%s has other bytes", name)
		}
	}
}

// memory is a sink in memory.
type memory struct {
	name   string
	reads  bool // what is written can be read again
	create error

	mu      sync.Mutex
	seen    map[string][]byte // that is committed, nil before
	replace bool
	left    int // outputs that were neither committed nor aborted
}

func (m *memory) String() string { return m.name }

func (m *memory) Begin(_ context.Context, replace bool) (files.Output, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.replace = replace; m.seen != nil && !replace {
		return nil, fs.ErrExist
	}
	m.left++
	out := &writes{sink: m, files: map[string]*room{}}
	if m.reads {
		return readable{out}, nil
	}
	return out, nil
}

type writes struct {
	sink  *memory
	files map[string]*room
}

type readable struct{ *writes }

func (r readable) Open(_ context.Context, name string) (files.File, error) {
	return bytes.NewReader(r.files[name].data), nil
}

// room is a file of a size, each byte of which is written once.
type room struct {
	mu      sync.Mutex
	data    []byte
	written int
}

func (r *room) WriteAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(off)+len(p) > len(r.data) {
		return 0, io.ErrShortWrite
	}
	r.written += len(p)
	return copy(r.data[off:], p), nil
}

func (w *writes) Create(name string, size int64) (io.WriterAt, error) {
	w.files[name] = &room{data: make([]byte, size)}
	return w.files[name], w.sink.create
}

func (w *writes) Commit(context.Context) error {
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	w.sink.seen = map[string][]byte{}
	for name, f := range w.files {
		if f.written != len(f.data) {
			return fmt.Errorf("%s: %d bytes of %d", name, f.written, len(f.data))
		}
		w.sink.seen[name] = f.data
	}
	return nil
}

func (w *writes) Abort() error {
	w.sink.left--
	return nil
}

// TestStore: a model in a store of objects must become what the same one on disk
// becomes, and its weights be read about once, in large ranges: each is a request.
func TestStore(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{1024, 4096}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{4096, 1024}},
		{Name: "c.weight", Dtype: safetensors.BF16, Shape: []int{256, 16384}},
		{Name: "d.bias", Dtype: safetensors.F32, Shape: []int{1 << 20}},
	})
	store := newObjects(map[string][]byte{"m.safetensors": fixture.FileBytes(t, source)})
	size := int64(len(store.content["m.safetensors"]))
	for _, dtype := range []string{"int8_tensorwise", "nvfp4", "int8_blockwise", "asym_w4a8_int8", "sdnq:uint4"} {
		clear(store.bytes)
		clear(store.ranges)
		want := filepath.Join(t.TempDir(), "want.safetensors")
		o := tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: dtype}, Preset: "none"}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(want), o); err != nil {
			t.Fatal(err)
		}
		got := &memory{name: "mem/want.safetensors"}
		r, err := tensorpress.Quantize(t.Context(), files.At(store, "m.safetensors"), got, o)
		if err != nil {
			t.Fatal(err)
		}
		equalFiles(t, got.seen, contents(t, want))
		if r.Source != "store://bucket/model/m.safetensors" || r.Dest != got.name || got.left != 0 {
			t.Errorf("from %s to %s, %d outputs under way", r.Source, r.Dest, got.left)
		}
		read, ranges := store.bytes["m.safetensors"], store.ranges["m.safetensors"]
		if most := size + size/10; read > most || int64(ranges) > 4+size/(1<<20) {
			t.Errorf("%s: read %d bytes in %d ranges of a file of %d", dtype, read, ranges, size)
		}
		if n := store.opened["m.safetensors"]; n != 0 {
			t.Errorf("%d files are left open", n)
		}

		small := newObjects(got.seen)
		back, restored := &memory{name: "mem/back"}, filepath.Join(t.TempDir(), "back.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), small, back, tensorpress.DequantizeOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(want), files.Dir(restored), tensorpress.DequantizeOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(back.seen)) {
			if filepath.Ext(name) == ".safetensors" && !bytes.Equal(back.seen[name], fixture.FileBytes(t, restored)) {
				t.Errorf("%s: %s has other bytes than one from disk", dtype, name)
			}
		}
		for name, data := range got.seen {
			if most := int64(len(data)) * 11 / 10; small.bytes[name] > most {
				t.Errorf("%s: read %d bytes of a file of %d", dtype, small.bytes[name], len(data))
			}
		}

		v, err := tensorpress.Verify(t.Context(), files.Dir(want), tensorpress.VerifyOptions{Source: files.At(store, "m.safetensors")})
		if err != nil || !v.OK {
			t.Errorf("%v, %v", v, err)
		}
	}
	i, err := tensorpress.Inspect(t.Context(), files.At(store, "m.safetensors"))
	if err != nil || i.Bytes == 0 || i.Path != "store://bucket/model/m.safetensors" {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestStoredFolders: so must a folder of shards, a pipeline, and all that stands
// beside weights, whatever is made of it.
func TestStoredFolders(t *testing.T) {
	for name, source := range map[string]string{"pipeline": pipelineSource(t), "shards": shardedSource(t)} {
		t.Run(name, func(t *testing.T) {
			store := newObjects(contents(t, source))
			store.version = func(string) string { return "1" }
			want := filepath.Join(t.TempDir(), "out")
			dtype := "uint8"
			o := tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: dtype}, ShardSize: 300_000}
			planned, err := tensorpress.Plan(t.Context(), store, nil, o)
			if err != nil {
				t.Fatal(err)
			}
			quantized, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(want), o)
			if err != nil {
				t.Fatal(err)
			}
			if len(planned.Layers) != len(quantized.Layers) {
				t.Errorf("planned %d layers, wrote %d", len(planned.Layers), len(quantized.Layers))
			}
			for dest, sink := range map[string]files.Sink{"memory": &memory{name: "mem/out"}, "disk": files.Dir(filepath.Join(t.TempDir(), "out"))} {
				if _, err := tensorpress.Quantize(t.Context(), store, sink, o); err != nil {
					t.Fatal(dest, err)
				}
				if m, ok := sink.(*memory); ok {
					equalFiles(t, m.seen, contents(t, want))
				} else {
					equalFiles(t, contents(t, sink.String()), contents(t, want))
				}
			}

			restored := filepath.Join(t.TempDir(), "restored")
			if _, err := tensorpress.Dequantize(t.Context(), files.Dir(want), files.Dir(restored), tensorpress.DequantizeOptions{}); err != nil {
				t.Fatal(err)
			}
			back := &memory{name: "mem/restored"}
			if _, err := tensorpress.Dequantize(t.Context(), newObjects(contents(t, want)), back, tensorpress.DequantizeOptions{}); err != nil {
				t.Fatal(err)
			}
			equalFiles(t, back.seen, contents(t, restored))
			v, err := tensorpress.Verify(t.Context(), newObjects(contents(t, want)), tensorpress.VerifyOptions{Source: store, For: "sdnext"})
			if err != nil || !v.OK {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

// TestMeasuredPipeline: the errors of a pipeline's layers are measured before it is in
// its place, where it was quantized and where its layers are requantized.
func TestMeasuredPipeline(t *testing.T) {
	source, made := pipelineSource(t), filepath.Join(t.TempDir(), "made")
	o := tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(16)}, Measure: true}
	again := tensorpress.TranscodeOptions{Layout: "comfy", Requantize: true}
	for _, dest := range []files.Sink{files.Dir(made), &memory{name: "mem/made", reads: true}} {
		if r, err := tensorpress.Quantize(t.Context(), files.Dir(source), dest, o); err != nil || r.Total == nil {
			t.Errorf("%s: %+v, %v", dest, r, err)
		}
	}
	for _, dest := range []files.Sink{files.Dir(made + "2"), &memory{name: "mem/again", reads: true}} {
		r, err := tensorpress.Transcode(t.Context(), files.Dir(made), dest, again)
		if err != nil || !slices.ContainsFunc(r.Layers, func(l report.Layer) bool { return l.Figures != nil }) {
			t.Errorf("%s: %+v, %v", dest, r, err)
		}
	}
}

// pipelineSource is a pipeline whose transformer is quantized.
func pipelineSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"model_index.json":                 `{"_class_name": "FluxPipeline", "transformer": ["diffusers", "T"], "vae": ["diffusers", "V"]}`,
		"transformer/config.json":          `{"_class_name": "FluxTransformer2DModel"}`,
		"vae/config.json":                  `{"_class_name": "AutoencoderKL"}`,
		"scheduler/scheduler_config.json":  `{}`,
		"transformer/notes/README.md":      "read me",
		"transformer/quantize_config.json": "{}",
	} {
		put(t, filepath.Join(dir, filepath.FromSlash(name)), []byte(text))
	}
	put(t, filepath.Join(dir, "transformer", "diffusion_pytorch_model.safetensors"), fixture.FileBytes(t, "testdata/minilm.safetensors"))
	put(t, filepath.Join(dir, "vae", "diffusion_pytorch_model.safetensors"), fixture.FileBytes(t, "testdata/minilm.safetensors"))
	return dir
}

// shardedSource is a folder of shards with an index, which quantizing leaves as they
// are.
func shardedSource(t *testing.T) string {
	t.Helper()
	whole, dir := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "shards")
	put(t, filepath.Join(whole, "model.safetensors"), fixture.FileBytes(t, "testdata/minilm.safetensors"))
	put(t, filepath.Join(whole, "config.json"), []byte(`{"model_type": "bert", "architectures": ["BertModel"]}`))
	put(t, filepath.Join(whole, "tokenizer.json"), bytes.Repeat([]byte("x"), 100))
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(whole), files.Dir(dir), tensorpress.Options{Keep: []string{"."}, ShardSize: 300_000}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, data, 0o666)); err != nil {
		t.Fatal(err)
	}
}

// TestStoreFails: what goes wrong in a store must come out with the name of the file,
// as the error that it is, and leave nothing behind.
func TestStoreFails(t *testing.T) {
	broken := errors.New("connection reset")
	model := fixture.FileBytes(t, "testdata/minilm.safetensors")
	tests := []struct {
		name    string
		content map[string][]byte
		change  func(o *objects)
		kind    error
		text    string
	}{
		{"header", nil, func(o *objects) {
			o.read = func(context.Context, int) error { return broken }
		}, broken, "store://bucket/model/model.safetensors: "},
		{"weights", nil, func(o *objects) {
			o.read = func(_ context.Context, before int) error {
				if before == 0 {
					return nil
				}
				return broken
			}
		}, broken, "store://bucket/model/model.safetensors: tensor "},
		{"nothing", map[string][]byte{"a/b.txt": nil}, nil, tensorpress.ErrSource, "no .safetensors file in the folder"},
		{"other names", map[string][]byte{"/model.safetensors": model}, nil, tensorpress.ErrSource, `lists "/model.safetensors"`},
		{"damaged", map[string][]byte{"model.safetensors": []byte("<html>")}, nil, tensorpress.ErrSource, "a web page"},
		{"changed", nil, func(o *objects) {
			n := 0
			o.version = func(string) string { n++; return fmt.Sprint(n) }
		}, tensorpress.ErrSource, "changed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newObjects(tt.content)
			if tt.content == nil {
				o.content = map[string][]byte{"model.safetensors": model}
			}
			if tt.change != nil {
				tt.change(o)
			}
			sink := &memory{name: "mem/out"}
			_, err := tensorpress.Quantize(t.Context(), o, sink, tensorpress.Options{})
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q", err, tt.text)
			}
			if sink.seen != nil || sink.left != 0 {
				t.Errorf("left %v, %d under way", sink.seen, sink.left)
			}
		})
	}
	if _, err := tensorpress.Quantize(t.Context(), files.At(newObjects(nil), "none.safetensors"), &memory{name: "x.safetensors"}, tensorpress.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// TestStoreHearsTheContext: a request that hangs must not keep a run that is over.
func TestStoreHearsTheContext(t *testing.T) {
	for _, first := range []int{0, 1} { // range of the header; of weights
		ctx, cancel := context.WithCancel(t.Context())
		o := newObjects(map[string][]byte{"m.safetensors": fixture.FileBytes(t, "testdata/minilm.safetensors")})
		o.read = func(ctx context.Context, before int) error {
			if before < first {
				return nil
			}
			cancel()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Minute):
				return errors.New("nobody cancelled this")
			}
		}
		sink := &memory{name: "mem/m.safetensors"}
		if _, err := tensorpress.Quantize(ctx, files.At(o, "m.safetensors"), sink, tensorpress.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		if sink.seen != nil || sink.left != 0 {
			t.Errorf("left %v, %d under way", sink.seen, sink.left)
		}
	}
}

// seekable is a file system whose files cannot be read at an offset; unseekable one
// whose files cannot be sought in either.
type (
	seekable   struct{ fs.FS }
	unseekable struct{ fs.FS }
)

func (s seekable) Open(name string) (fs.File, error) {
	f, err := s.FS.Open(name)
	if seeks, ok := f.(io.ReadSeeker); ok {
		return struct {
			io.ReadSeeker
			statCloser
		}{seeks, f}, err
	}
	return f, err
}

type statCloser interface {
	Stat() (fs.FileInfo, error)
	Close() error
}

func (s unseekable) Open(name string) (fs.File, error) {
	f, err := s.FS.Open(name)
	if _, ok := f.(fs.ReadDirFile); ok || err != nil {
		return f, err
	}
	return struct{ fs.File }{f}, err
}

// TestFS: file systems of Go's hold models, too, if their files can be read from
// anywhere in them.
func TestFS(t *testing.T) {
	model := fixture.FileBytes(t, "testdata/minilm.safetensors")
	inMemory := fstest.MapFS{"a/model.safetensors": {Data: model}, "a/config.json": {Data: []byte("{}")}}
	want := filepath.Join(t.TempDir(), "out")
	source := filepath.Join(t.TempDir(), "a")
	put(t, filepath.Join(source, "model.safetensors"), model)
	put(t, filepath.Join(source, "config.json"), []byte("{}"))
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(want), tensorpress.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, fsys := range map[string]fs.FS{"memory": inMemory, "seekable": seekable{inMemory}, "disk": os.DirFS(filepath.Dir(source))} {
		dest := filepath.Join(t.TempDir(), "out")
		if _, err := tensorpress.Quantize(t.Context(), files.At(files.FS(fsys), "a"), files.Dir(dest), tensorpress.Options{}); err != nil {
			t.Fatal(name, err)
		}
		equalFiles(t, contents(t, dest), contents(t, want))
	}

	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	if err := errors.Join(z.AddFS(inMemory), z.Close()); err != nil {
		t.Fatal(err)
	}
	zipped, err := zip.NewReader(bytes.NewReader(archive.Bytes()), int64(archive.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for name, fsys := range map[string]fs.FS{"zip": zipped, "unseekable": unseekable{inMemory}} {
		_, err := tensorpress.Plan(t.Context(), files.At(files.FS(fsys), "a/model.safetensors"), nil, tensorpress.Options{})
		if !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), "a/model.safetensors") || !strings.Contains(err.Error(), "from its beginning alone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSink: what a sink cannot do is said before the work begins, and what it is not
// asked to do twice.
func TestSink(t *testing.T) {
	source := files.Dir("testdata/minilm.safetensors")
	for _, reads := range []bool{false, true} {
		sink := &memory{name: "mem/m.safetensors", reads: reads}
		r, err := tensorpress.Quantize(t.Context(), source, sink, tensorpress.Options{Measure: true})
		switch {
		case reads && (err != nil || r.Total == nil || *r.Total.RelMSE > 1e-3):
			t.Errorf("%+v, %v", r, err)
		case !reads && (!errors.Is(err, tensorpress.ErrUsage) || sink.seen != nil):
			t.Errorf("got %v, want ErrUsage", err)
		}
		if sink.left != 0 {
			t.Errorf("%d outputs are under way", sink.left)
		}
	}
	there := &memory{name: "mem/m.safetensors", seen: map[string][]byte{}}
	if _, err := tensorpress.Quantize(t.Context(), source, there, tensorpress.Options{}); !errors.Is(err, fs.ErrExist) || !errors.Is(err, tensorpress.ErrUsage) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	if _, err := tensorpress.Quantize(t.Context(), source, there, tensorpress.Options{Force: true}); err != nil || !there.replace {
		t.Errorf("got %v", err)
	}
	full := &memory{name: "mem/m.safetensors", create: errors.New("no room")}
	if _, err := tensorpress.Quantize(t.Context(), source, full, tensorpress.Options{}); !errors.Is(err, full.create) || full.seen != nil || full.left != 0 {
		t.Errorf("got %v", err)
	}
	if _, err := tensorpress.Quantize(t.Context(), source, nil, tensorpress.Options{}); !errors.Is(err, tensorpress.ErrUsage) {
		t.Errorf("got %v, want ErrUsage", err)
	}

	sdnq, dtype := &memory{name: "mem/m.safetensors"}, "int5"
	r, err := tensorpress.Quantize(t.Context(), source, sdnq, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: dtype}})
	if err != nil || len(sdnq.seen) != 1 || !strings.Contains(strings.Join(r.Notes, " "), "in the header") {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := tensorpress.Quantize(t.Context(), source, sdnq, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: dtype}, For: "invokeai", Force: true}); !errors.Is(err, tensorpress.ErrUsage) {
		t.Errorf("got %v, want ErrUsage", err)
	}
	moved := &memory{name: "mem/moved.safetensors", reads: true}
	if _, err := tensorpress.Transcode(t.Context(), newObjects(sdnq.seen), &memory{name: "mem/moved"}, tensorpress.TranscodeOptions{Layout: "comfy", Requantize: true}); !errors.Is(err, tensorpress.ErrUsage) {
		t.Errorf("got %v, want ErrUsage", err)
	}
	if _, err := tensorpress.Transcode(t.Context(), files.At(newObjects(sdnq.seen), "m.safetensors"), moved, tensorpress.TranscodeOptions{Layout: "comfy", Requantize: true}); err != nil || len(moved.seen) != 1 {
		t.Errorf("%v, %v", moved.seen, err)
	}
}

// TestSinkScratch: a search that puts things on disk must find room without a stage.
func TestSinkScratch(t *testing.T) {
	dtype := "uint4"
	o := tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: dtype, SVDRank: new(64)}, Memory: 1 << 20}
	want := filepath.Join(t.TempDir(), "m.safetensors")
	o.Only = []string{`intermediate`}
	if _, err := tensorpress.Quantize(t.Context(), files.Dir("testdata/minilm.safetensors"), files.Dir(want), o); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	got := &memory{name: "mem/m.safetensors"}
	if _, err := tensorpress.Quantize(t.Context(), files.Dir("testdata/minilm.safetensors"), got, o); err != nil {
		t.Fatal(err)
	}
	equalFiles(t, got.seen, contents(t, want))
	if names := fixture.Left(t, temp); names != "" {
		t.Errorf("left behind: %s", names)
	}
}

// TestKinds: a program tells a source that is missing, and an output that is there, by
// the kinds of errors.
func TestKinds(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "x.safetensors")
	put(t, dest, nil)
	folder := t.TempDir()
	put(t, filepath.Join(folder, "mine.txt"), nil)
	source := files.Dir("testdata/minilm.safetensors")
	_, missing := tensorpress.Quantize(t.Context(), files.Dir("none.safetensors"), files.Dir("x.safetensors"), tensorpress.Options{})
	_, nothing := tensorpress.Inspect(t.Context(), nil)
	_, there := tensorpress.Quantize(t.Context(), source, files.Dir(dest), tensorpress.Options{})
	_, planned := tensorpress.Plan(t.Context(), source, files.Dir(dest), tensorpress.Options{})
	_, others := tensorpress.Quantize(t.Context(), files.Dir(filepath.Dir(shardedSource(t))+"/shards"), files.Dir(folder), tensorpress.Options{Force: true})
	for err, kind := range map[error]error{missing: fs.ErrNotExist, nothing: fs.ErrNotExist, there: fs.ErrExist, planned: fs.ErrExist, others: fs.ErrExist} {
		if !errors.Is(err, kind) {
			t.Errorf("got %v, want %v", err, kind)
		}
	}
	if !errors.Is(there, tensorpress.ErrUsage) {
		t.Errorf("%v is no ErrUsage", there)
	}
}
