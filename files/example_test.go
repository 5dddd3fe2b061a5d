package files_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
)

// web is files of a server that answers requests for ranges of bytes, as stores of
// objects do.
type web struct {
	address string
	names   []string
}

func (w web) String() string { return w.address }

func (w web) List(context.Context) ([]string, error) { return w.names, nil }

func (w web) Open(ctx context.Context, name string) (files.File, error) {
	one := page{ctx: ctx, address: w.address + "/" + name}
	answer, err := one.ask(http.MethodHead, "")
	if err != nil {
		return nil, err
	}
	answer.Body.Close()
	one.size, one.version = answer.ContentLength, answer.Header.Get("Last-Modified")
	return one, nil
}

// page is one of them.
type page struct {
	ctx     context.Context
	address string
	size    int64
	version string
}

func (p page) Size() int64     { return p.size }
func (p page) Version() string { return p.version }

func (p page) ReadAt(b []byte, off int64) (int, error) {
	answer, err := p.ask(http.MethodGet, fmt.Sprintf("bytes=%d-%d", off, min(off+int64(len(b)), p.size)-1))
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	n, err := io.ReadFull(answer.Body, b)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func (p page) ask(method, ranges string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(p.ctx, method, p.address, nil)
	if err != nil {
		return nil, err
	}
	if ranges != "" {
		request.Header.Set("Range", ranges)
	}
	answer, err := http.DefaultClient.Do(request)
	if err == nil && answer.StatusCode/100 != 2 {
		answer.Body.Close()
		err = fmt.Errorf("%s: %s", method, answer.Status)
	}
	return answer, err
}

// A model is quantized as it lies on a server, of which ranges of bytes are read.
func ExampleSource() {
	server := httptest.NewServer(http.FileServer(http.Dir("../testdata")))
	defer server.Close()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	source := files.At(web{server.URL, []string{"minilm.safetensors"}}, "minilm.safetensors")
	dest := files.Dir(filepath.Join(dir, "small.safetensors"))
	r, err := tensorpress.Quantize(context.Background(), source, dest, tensorpress.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(r.Layers), r.BytesOut < r.BytesIn)
	// Output: 13 true
}

// memory keeps outputs in memory.
type memory map[string]buffer

type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

func (m memory) String() string { return "memory/small.safetensors" }

func (m memory) Begin(_ context.Context, replace bool) (files.Output, error) {
	if len(m) > 0 && !replace {
		return nil, os.ErrExist
	}
	return &output{m, map[string]buffer{}}, nil
}

// output is one under way.
type output struct {
	sink  memory
	files map[string]buffer
}

func (o *output) Create(name string, size int64) (io.WriterAt, error) {
	o.files[name] = make(buffer, size)
	return o.files[name], nil
}

func (o *output) Commit(context.Context) error {
	clear(o.sink)
	for name, data := range o.files {
		o.sink[name] = data
	}
	return nil
}

func (o *output) Abort() error { return nil }

// An output goes to memory, and is there when all of it is.
func ExampleSink() {
	dest := memory{}
	_, err := tensorpress.Quantize(context.Background(), files.Dir("../testdata/minilm.safetensors"), dest, tensorpress.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for name, data := range dest {
		fmt.Println(name, len(data) > 1_000_000)
	}
	// Output: small.safetensors true
}
