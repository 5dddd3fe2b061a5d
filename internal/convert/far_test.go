package convert_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/hubtest"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/safetensors"
)

// farModel is a folder with two files of weights, of 12 MiB together.
func farModel(t *testing.T) (folder string, bytes int64, sums map[string]string) {
	t.Helper()
	folder, sums = t.TempDir(), map[string]string{}
	r := rand.NewChaCha8([32]byte{7})
	var index []string
	for i, shard := range []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
		var tensors []safetensors.Tensor
		data := map[string][]byte{}
		for j := range 3 {
			body := make([]byte, 2<<20)
			r.Read(body)
			for k := 1; k < len(body); k += 2 {
				body[k] = 0x3c | body[k]&0x83 // small numbers
			}
			name := "layers." + string(rune('0'+3*i+j)) + ".mlp.up_proj.weight"
			tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: []int{1024, 1024}})
			data[name] = body
			index = append(index, `"`+name+`": "`+shard+`"`)
		}
		fixture.Write(t, filepath.Join(folder, shard), tensors, data)
	}
	for name, text := range map[string]string{
		"model.safetensors.index.json": `{"metadata": {}, "weight_map": {` + strings.Join(index, ", ") + `}}`,
		"config.json":                  `{"model_type": "llama"}`, "tokenizer.json": strings.Repeat("[]", 400_000),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, entry := range must(os.ReadDir(folder)) {
		data := must(os.ReadFile(filepath.Join(folder, entry.Name())))
		sum := sha256.Sum256(data)
		sums[entry.Name()], bytes = hex.EncodeToString(sum[:]), bytes+int64(len(data))
	}
	return folder, bytes, sums
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestFarSourceIsReadOnce: with and without the sha256 of all files in the report, what a
// source far away sends is hardly more than it holds, and the output is that of a folder.
func TestFarSourceIsReadOnce(t *testing.T) {
	folder, size, sums := farModel(t)
	var sent atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.FileServer(http.Dir(folder)).ServeHTTP(&countedAnswer{w, &sent}, r)
	}))
	defer web.Close()
	hub := hubtest.New()
	defer hub.Close()
	must(hub.AddFolder("org/model", folder))
	t.Setenv("HF_ENDPOINT", hub.Endpoint())
	t.Setenv("HF_HOME", t.TempDir())
	for _, dtype := range []string{"int8", "uint4", "float8_e4m3fn"} {
		for _, hash := range []bool{false, true} {
			o := tensorpress.Options{Hash: hash, Layer: tensorpress.Settings{Dtype: dtype}}
			at := filepath.Join(t.TempDir(), "out")
			must(tensorpress.Quantize(t.Context(), files.Dir(folder), files.Dir(at), o))
			want := hashesBelow(t, at)
			for _, address := range []string{"hf://org/model", web.URL + "/model.safetensors.index.json"} {
				if err := os.RemoveAll(at); err != nil {
					t.Fatal(err)
				}
				before := sent.Load() + sentBy(hub)
				far, _, err := remote.Open(address, 32<<20)
				if err != nil {
					t.Fatal(err)
				}
				made, err := tensorpress.Quantize(t.Context(), far, files.Dir(at), o)
				if err != nil {
					t.Fatal(err)
				}
				if got := sent.Load() + sentBy(hub) - before; float64(got) > 1.02*float64(size) {
					t.Errorf("%s, %s, hashes %v: %d bytes were sent of %d", address, dtype, hash, got, size)
				}
				for path, sum := range hashesBelow(t, at) {
					if strings.HasSuffix(path, ".safetensors") && want[path] != sum {
						t.Errorf("%s, %s: %s differs", address, dtype, path)
					}
				}
				if !hash {
					continue
				}
				for _, f := range made.Provenance.Sources {
					name := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
					if sums[name] != f.SHA256 {
						t.Errorf("%s: %s has sha256 %s, want %s", address, f.Path, f.SHA256, sums[name])
					}
				}
				if n := len(made.Provenance.Sources); n < 4 {
					t.Errorf("%s: %d sources", address, n)
				}
			}
		}
	}
}

func sentBy(h *hubtest.Hub) (n int64) {
	for _, r := range h.Requests() {
		n += r.Bytes
	}
	return n
}

type countedAnswer struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countedAnswer) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}
