package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/safetensors"
)

// weights is a file of one-byte tensors, each the first byte of its name.
func weights(t testing.TB, metadata map[string]string, names ...string) string {
	t.Helper()
	var tensors []safetensors.Tensor
	for _, name := range names {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.U8, Shape: []int{1}})
	}
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	b := h.Encode()
	for _, tensor := range h.Tensors {
		b = append(b, tensor.Name[0])
	}
	return string(b)
}

// folder is a folder of those files, by slash path.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, path string) *checkpoint.Checkpoint {
	t.Helper()
	c, err := checkpoint.Open(source.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

const (
	indexName = "model.safetensors.index.json"
	twoShards = `{"metadata":{"total_size":3},"weight_map":{"a":"x.safetensors","b":"y.safetensors","c":"x.safetensors"}}`
)

func TestOpen(t *testing.T) {
	w := func(names ...string) string { return weights(t, nil, names...) }
	sharded := map[string]string{indexName: twoShards, "x.safetensors": w("c", "a"), "y.safetensors": w("b")}
	with := func(name, content string) map[string]string {
		files := maps.Clone(sharded)
		files[name] = content
		return files
	}
	tests := []struct {
		name   string
		files  map[string]string
		open   string // below the folder
		shards []string
		names  []string
		index  string
	}{
		{"file", map[string]string{"x.safetensors": w("b", "a")}, "x.safetensors", []string{"x.safetensors"}, []string{"a", "b"}, ""},
		{"one shard by name", sharded, "x.safetensors", []string{"x.safetensors"}, []string{"a", "c"}, ""},
		{"index", sharded, indexName, []string{"x.safetensors", "y.safetensors"}, []string{"a", "b", "c"}, indexName},
		{"folder with an index", sharded, "", []string{"x.safetensors", "y.safetensors"}, []string{"a", "b", "c"}, indexName},
		{"file before index, as transformers", with("model.safetensors", w("z")), "", []string{"model.safetensors"}, []string{"z"}, ""},
		{"usual index before others", with("other.safetensors.index.json", "{}"), "", []string{"x.safetensors", "y.safetensors"}, []string{"a", "b", "c"}, indexName},
		{"the only index", map[string]string{"q.safetensors.index.json": `{"weight_map":{"a":"sub/x.safetensors"}}`, "sub/x.safetensors": w("a")}, "",
			[]string{"sub/x.safetensors"}, []string{"a"}, "q.safetensors.index.json"},
		{"the only file", map[string]string{"q.safetensors": w("a")}, "", []string{"q.safetensors"}, []string{"a"}, ""},
		{"hidden files", map[string]string{"q.safetensors": w("a"), "._q.safetensors": "?"}, "", []string{"q.safetensors"}, []string{"a"}, ""},
		{"usual file before others", map[string]string{"model.safetensors": w("a"), "model.fp16.safetensors": w("b")}, "",
			[]string{"model.safetensors"}, []string{"a"}, ""},
		{"diffusers file", map[string]string{"diffusion_pytorch_model.safetensors": w("a"), "q.safetensors": w("b")}, "",
			[]string{"diffusion_pytorch_model.safetensors"}, []string{"a"}, ""},
		{"set without an index", map[string]string{"model-00001-of-00002.safetensors": w("b"), "model-00002-of-00002.safetensors": w("a")}, "",
			[]string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}, []string{"a", "b"}, ""},
		{"set of one", map[string]string{"model-00001-of-00001.safetensors": w("b")}, "",
			[]string{"model-00001-of-00001.safetensors"}, []string{"b"}, ""},
		{"pickles beside", map[string]string{"q.safetensors": w("a"), "pytorch_model.bin": "?"}, "", []string{"q.safetensors"}, []string{"a"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.files)
			c := open(t, filepath.Join(dir, tt.open))
			if c.Dir != dir || c.IsDir != (tt.open == "") || c.Index != tt.index {
				t.Errorf("got %q, %v, %q", c.Dir, c.IsDir, c.Index)
			}
			if want := tt.index != "" || strings.HasPrefix(tt.name, "set"); c.Sharded != want {
				t.Errorf("Sharded = %v, want %v", c.Sharded, want)
			}
			if !slices.Equal(c.ShardNames, tt.shards) {
				t.Errorf("got shards %q, want %q", c.ShardNames, tt.shards)
			}
			checkTensors(t, c, tt.names)
		})
	}
}

// checkTensors reads every tensor and compares the names.
func checkTensors(t *testing.T, c *checkpoint.Checkpoint, want []string) {
	t.Helper()
	var names []string
	for _, tensor := range c.Tensors {
		names = append(names, tensor.Name)
		p := make([]byte, 1)
		if err := c.ReadSection(tensor, p, 0); err != nil || p[0] != tensor.Name[0] {
			t.Errorf("%s: read %q, %v", tensor.Name, p, err)
		}
		if got, ok := c.Lookup(tensor.Name); !ok || got.Shard != tensor.Shard {
			t.Errorf("Lookup(%s) = %v, %v", tensor.Name, got, ok)
		}
		if want := filepath.Join(c.Dir, filepath.FromSlash(c.ShardNames[tensor.Shard])); c.File(tensor) != want {
			t.Errorf("File(%s) = %s, want %s", tensor.Name, c.File(tensor), want)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("got tensors %q, want %q", names, want)
	}
	if _, ok := c.Lookup("none"); ok {
		t.Error(`Lookup("none") found something`)
	}
}

func TestOpenRefuses(t *testing.T) {
	w := func(names ...string) string { return weights(t, nil, names...) }
	indexed := func(weightMap string) map[string]string {
		return map[string]string{
			indexName:       `{"weight_map":{` + weightMap + `}}`,
			"x.safetensors": w("a"), "y.safetensors": w("b"),
		}
	}
	one := func(name string) map[string]string { return map[string]string{name: "?"} }
	const whole = `"a":"x.safetensors","b":"y.safetensors"`
	tests := []struct {
		name  string
		files map[string]string
		open  string
		want  string
	}{
		{"empty folder", nil, "", "no .safetensors file in the folder"},
		{"several files", map[string]string{"q.safetensors": w("a"), "p.safetensors": w("b")}, "",
			"holds p.safetensors, q.safetensors, and nothing says which to take: name one of them"},
		{"several indexes", map[string]string{"q.safetensors.index.json": "{}", "p.safetensors.index.json": "{}"}, "",
			"holds p.safetensors.index.json, q.safetensors.index.json, and nothing says which to take"},
		{"set without its second", map[string]string{"model-00001-of-00003.safetensors": w("a"), "model-00003-of-00003.safetensors": w("b")}, "",
			"shard 2 of 3 is missing, and there is no index"},
		{"set with a shard too many", map[string]string{"m-00001-of-00001.safetensors": w("a"), "m-00002-of-00001.safetensors": w("b")}, "",
			"want 1 shards, got 2"},
		{"two sets", map[string]string{"m-00001-of-00001.safetensors": w("a"), "n-00001-of-00001.safetensors": w("b")}, "",
			"nothing says which to take"},
		{"pipeline", map[string]string{"model_index.json": "{}", "model.safetensors": w("a")}, "",
			"is a diffusers pipeline (model_index.json): name the folder of a component"},
		{"pipeline by file", one("model_index.json"), "model_index.json", "is a diffusers pipeline"},
		{"ckpt", one("q.ckpt"), "q.ckpt", "q.ckpt: is a pickle checkpoint, which is not read because loading it can run code: convert it to safetensors first"},
		{"pt", one("q.pt"), "q.pt", "convert it to safetensors first"},
		{"pth", one("q.PTH"), "q.PTH", "convert it to safetensors first"},
		{"bin", one("q.bin"), "q.bin", "convert it to safetensors first"},
		{"bin index", one("q.bin.index.json"), "q.bin.index.json", "convert it to safetensors first"},
		{"gguf", one("q.gguf"), "q.gguf", "GGUF is not supported: start from the safetensors checkpoint it was made of"},
		{"folder of pickles", one("pytorch_model.bin"), "", "no .safetensors file in the folder: "},
		{"folder of GGUF", one("q.gguf"), "", "GGUF is not supported"},
		{"other file", one("q.txt"), "q.txt", "q.txt: want a .safetensors file"},
		{"broken file", one("q.safetensors"), "q.safetensors", "q.safetensors: file of 1 bytes is too short"},
		{"broken shard", map[string]string{indexName: twoShards, "x.safetensors": w("a", "c"), "y.safetensors": "?"}, "", "y.safetensors: file of 1 bytes"},
		{"config malformed", map[string]string{"model.safetensors": w("a"), "config.json": "{"}, "", "config.json: "},
		{"config null", map[string]string{"model.safetensors": w("a"), "config.json": "null"}, "", "config.json: not a JSON object"},

		{"missing shard", indexed(whole + `,"c":"z.safetensors"`), "", `index.json: shard "z.safetensors" is missing`},
		{"name in two shards", map[string]string{indexName: twoShards, "x.safetensors": w("a", "b", "c"), "y.safetensors": w("b")}, "",
			`tensor "b" is in two shards, "x.safetensors" and "y.safetensors"`},
		{"tensor in no shard", indexed(whole + `,"c":"y.safetensors"`), "", `maps tensor "c" to "y.safetensors", which does not hold it`},
		{"tensor in another shard", indexed(`"a":"y.safetensors","b":"x.safetensors"`), "",
			`maps tensor "a" to "y.safetensors", but "x.safetensors" holds it`},
		{"tensor not listed", map[string]string{indexName: twoShards, "x.safetensors": w("a", "c", "d"), "y.safetensors": w("b")}, "",
			`does not list tensor "d" of "x.safetensors"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := checkpoint.Open(source.Path(filepath.Join(folder(t, tt.files), tt.open)))
			if !errors.Is(err, checkpoint.ErrSource) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMissingPathsAreOSErrors(t *testing.T) {
	_, err := checkpoint.Open(source.Path(filepath.Join(t.TempDir(), "none")))
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, checkpoint.ErrSource) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	_, err = checkpoint.Open(source.Path(folder(t, map[string]string{indexName: twoShards})))
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, checkpoint.ErrSource) || !strings.Contains(err.Error(), `"x.safetensors"`) {
		t.Errorf("got %v, want ErrNotExist and ErrSource of the first shard", err)
	}
}

func TestMetadata(t *testing.T) {
	type m = map[string]string
	tests := []struct {
		name    string
		x, y    m
		want    m
		wantNil bool
	}{
		{"none", nil, nil, nil, true},
		{"empty", m{}, nil, m{}, false},
		{"equal", m{"format": "pt"}, m{"format": "pt"}, m{"format": "pt"}, false},
		{"in one", m{"format": "pt"}, nil, m{"format": "pt"}, false},
		{"disputed", m{"format": "pt", "k": "1"}, m{"format": "pt", "k": "2"}, m{"format": "pt"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t, folder(t, m{
				indexName: twoShards, "x.safetensors": weights(t, tt.x, "a", "c"), "y.safetensors": weights(t, tt.y, "b"),
			}))
			if !maps.Equal(c.Metadata, tt.want) || (c.Metadata == nil) != tt.wantNil {
				t.Errorf("got %v, want %v", c.Metadata, tt.want)
			}
			if string(c.IndexMetadata["total_size"]) != "3" {
				t.Errorf("got index metadata %s", c.IndexMetadata)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	files := map[string]string{"model.safetensors": weights(t, nil, "a")}
	if c := open(t, folder(t, files)); c.Config != nil {
		t.Errorf("got %s, want nil", c.Config)
	}
	files["config.json"] = `{"model_type":"llama","time_step_limit":[0.0,Infinity]}`
	if v, _ := open(t, filepath.Join(folder(t, files), "model.safetensors")).Config.Get("model_type"); v != "llama" {
		t.Errorf("got %v", v)
	}
	files["config.json"] = "no JSON"
	if c := open(t, filepath.Join(folder(t, files), "model.safetensors")); c.Config != nil {
		t.Errorf("got %v beside a file", c.Config)
	}
	if _, err := checkpoint.Open(source.Path(folder(t, files))); !errors.Is(err, checkpoint.ErrSource) {
		t.Errorf("got %v for a broken config", err)
	}
}

func TestOtherFiles(t *testing.T) {
	w := weights(t, nil, "a")
	dir := folder(t, map[string]string{
		indexName: `{"weight_map":{"a":"x.safetensors"}}`, "x.safetensors": w,
		"config.json": "{}", "sub/vocab.txt": "", "sub/x.safetensors": w, "extra.safetensors": w, ".gitattributes": "",
		".git/HEAD": "", ".cache/huggingface/x.lock": "", "sub/.git": "", ".tensorpress/plan.json": "{}",
	})
	files, weights := []string{".gitattributes", "config.json", "sub/.git", "sub/vocab.txt"}, []string{"extra.safetensors", "sub/x.safetensors"}
	for _, source := range []string{dir, filepath.Join(dir, indexName)} {
		got, err := open(t, source).OtherFiles(false)
		if err != nil || !slices.Equal(got.Files, files) || !slices.Equal(got.LeftOut, weights) || got.Bytes != int64(2*len(w)) {
			t.Errorf("%s: got %+v, %v", source, got, err)
		}
		got, err = open(t, source).OtherFiles(true)
		if want := slices.Sorted(slices.Values(slices.Concat(files, weights))); err != nil || !slices.Equal(got.Files, want) || got.LeftOut != nil {
			t.Errorf("%s with weights: got %+v, %v, want %q", source, got, err, want)
		}
	}
	if got, err := open(t, filepath.Join(dir, "x.safetensors")).OtherFiles(false); err != nil || got.Files != nil || got.LeftOut != nil {
		t.Errorf("of a file: got %+v, %v, want none", got, err)
	}
}

// link makes a link, or skips the test where the system does not let it.
func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skip(err)
	}
}

// Model caches keep files elsewhere and link to them.
func TestLinkedCache(t *testing.T) {
	cache := folder(t, map[string]string{
		"models--o--n/blobs/1": weights(t, nil, "a"), "models--o--n/blobs/2": `{"weight_map":{"a":"x.safetensors"}}`, "models--o--n/blobs/3": "{}",
		"models--o--n/snapshots/abc/README.md": "", "models--o--n/refs/main": "abc",
	})
	dir := filepath.Join(cache, "models--o--n", "snapshots", "abc")
	for name, blob := range map[string]string{"x.safetensors": "1", indexName: "2", "config.json": "3"} {
		link(t, filepath.Join("..", "..", "blobs", blob), filepath.Join(dir, name))
	}
	linked := filepath.Join(t.TempDir(), "linked")
	link(t, dir, linked)
	c := open(t, linked)
	checkTensors(t, c, []string{"a"})
	if got, err := c.OtherFiles(false); err != nil || !slices.Equal(got.Files, []string{"README.md", "config.json"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, path := range []string{filepath.Dir(dir), filepath.Join(cache, "models--o--n")} {
		if _, err := checkpoint.Open(source.Path(path)); !errors.Is(err, checkpoint.ErrSource) || !strings.Contains(err.Error(), "take the model in it, "+dir) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestOtherFilesRefusesLinks(t *testing.T) {
	private := folder(t, map[string]string{"key": "private"})
	for target, want := range map[string]string{
		"gone": "is a link to nowhere", ".": "is a link to a folder that holds it", private: "is a link out of the source, to ",
		filepath.Join(private, "key"): "is a link out of the source, to ", "link": "is a link that cannot be followed",
	} {
		dir := folder(t, map[string]string{"model.safetensors": weights(t, nil, "a")})
		link(t, target, filepath.Join(dir, "link"))
		_, err := open(t, dir).OtherFiles(false)
		if !errors.Is(err, checkpoint.ErrSource) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// manyShards is a checkpoint of n shards.
func manyShards(t testing.TB, n int) string {
	files, entries := map[string]string{}, []string{}
	for i := range n {
		file, name := fmt.Sprintf("s-%04d.safetensors", i), fmt.Sprintf("%c.%04d", 'a'+i%26, i)
		files[file] = weights(t, nil, name)
		entries = append(entries, fmt.Sprintf("%q:%q", name, file))
	}
	files[indexName] = `{"weight_map":{` + strings.Join(entries, ",") + `}}`
	return folder(t, files)
}

func TestManyShardsAreReadConcurrently(t *testing.T) {
	c := open(t, manyShards(t, 300))
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range c.Tensors {
				tensor, p := c.Tensors[(i*(worker+1))%len(c.Tensors)], make([]byte, 1)
				if err := c.ReadSection(tensor, p, 0); err != nil || p[0] != tensor.Name[0] {
					t.Errorf("%s: read %q, %v", tensor.Name, p, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestReadSectionOfAChangedShard(t *testing.T) {
	dir := folder(t, map[string]string{"model.safetensors": weights(t, nil, "a")})
	c := open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), []byte("now something else altogether"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.ReadSection(c.Tensors[0], make([]byte, 1), 0)
	if !errors.Is(err, checkpoint.ErrSource) || !strings.Contains(err.Error(), "file changed after its header was read") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkOpen1000Shards(b *testing.B) {
	dir := manyShards(b, 1000)
	for b.Loop() {
		c, err := checkpoint.Open(source.Path(dir))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestShardsInAnotherOrder: tensors come by name, with their own shards, also
// where a shard has them by dtype and the index cannot be followed.
func TestShardsInAnotherOrder(t *testing.T) {
	h, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "a", Dtype: safetensors.U8, Shape: []int{1}}, {Name: "c", Dtype: safetensors.F32, Shape: []int{1}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.Tensors[0].Name != "c" {
		t.Fatal("the test wants a shard that is not in order")
	}
	c := open(t, folder(t, map[string]string{
		indexName: twoShards, "x.safetensors": string(append(h.Encode(), "0123a"...)), "y.safetensors": weights(t, nil, "b"),
	}))
	for i, want := range []string{"a x.safetensors", "b y.safetensors", "c x.safetensors"} {
		if got := c.Tensors[i].Name + " " + c.ShardNames[c.Tensors[i].Shard]; got != want {
			t.Errorf("tensor %d is %s, want %s", i, got, want)
		}
	}
}

// TestUpBehindALink: of two files of one name, the one must be read that the system
// means.
func TestUpBehindALink(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	for _, folder := range []string{"a/real", "b"} {
		if err := os.MkdirAll(at(folder), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(at("a/real"), at("b/link")); err != nil {
		t.Skip(err)
	}
	for folder, tensor := range map[string]string{"a": "meant", "b": "other"} {
		h, err := safetensors.NewHeader([]safetensors.Tensor{{Name: tensor, Dtype: safetensors.U8, Shape: []int{1}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(folder+"/model.safetensors"), append(h.Encode(), 0), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{at("b/link") + "/../model.safetensors", at("b/link") + "/.."} {
		c, err := checkpoint.Open(source.Path(path))
		if err != nil {
			t.Fatal(err)
		}
		if name := c.Tensors[0].Name; name != "meant" {
			t.Errorf("%s: read the tensor %s", path, name)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
