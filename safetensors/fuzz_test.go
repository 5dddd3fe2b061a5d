package safetensors_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// FuzzHeader makes sure that what is accepted survives being written and read.
func FuzzHeader(f *testing.F) {
	for _, path := range goldens(f) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(fileOf(`{"__metadata__":{"\ud83d\ude00":"\u0000"}, "\/":{"shape":[0],"dtype":"F4","data_offsets":[0,0]}} `, 0))
	f.Add(fileOf(shaped(`[9223372036854775807,2]`), 2))
	f.Fuzz(func(t *testing.T, file []byte) {
		h, err := parse(file)
		if err != nil {
			return
		}
		if h.FileSize() != int64(len(file)) {
			t.Fatalf("FileSize() = %d, file has %d bytes", h.FileSize(), len(file))
		}
		again, err := parse(append(h.Encode(), file[h.DataStart:]...))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Tensors, h.Tensors) || !maps.Equal(again.Metadata, h.Metadata) ||
			(again.Metadata == nil) != (h.Metadata == nil) {
			t.Fatalf("read again: %v %v, want %v %v", again.Tensors, again.Metadata, h.Tensors, h.Metadata)
		}
		if _, err := safetensors.NewHeader(h.Tensors, h.Metadata); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkReadHeader parses 1,000 headers of 20 tensors.
func BenchmarkReadHeader(b *testing.B) {
	var tensors []safetensors.Tensor
	for i := range 20 {
		tensors = append(tensors, safetensors.Tensor{
			Name:  fmt.Sprintf("model.layers.%d.self_attn.q_proj.weight", i),
			Dtype: safetensors.BF16,
			Shape: []int{16, 32},
		})
	}
	h, err := safetensors.NewHeader(tensors, map[string]string{"format": "pt"})
	if err != nil {
		b.Fatal(err)
	}
	r := strings.NewReader(string(h.Encode()))
	b.ReportAllocs()
	for b.Loop() {
		for range 1000 {
			if _, err := safetensors.ReadHeader(r, h.FileSize()); err != nil {
				b.Fatal(err)
			}
		}
	}
}
