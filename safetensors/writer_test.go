package safetensors_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// writer is a writer of tensors "a" of 4 bytes, "b" of 2 and "z" of none.
func writer(t *testing.T) (*safetensors.Writer, *safetensors.Header) {
	t.Helper()
	h, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "a", Dtype: safetensors.U8, Shape: []int{4}},
		{Name: "b", Dtype: safetensors.U8, Shape: []int{2}},
		{Name: "z", Dtype: safetensors.U8, Shape: []int{0}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := safetensors.NewWriter(&memory{b: make([]byte, h.FileSize())}, h)
	if err != nil {
		t.Fatal(err)
	}
	return w, h
}

func TestWriteSectionRefuses(t *testing.T) {
	tests := []struct {
		name   string
		off, n int
		kind   error
		want   string
	}{
		{"a", 0, 5, safetensors.ErrRange, `tensor "a": section of 5 bytes at 0 goes past its 4 bytes`},
		{"a", 4, 1, safetensors.ErrRange, `tensor "a": section of 1 bytes at 4 goes past its 4 bytes`},
		{"a", -1, 1, safetensors.ErrRange, `tensor "a": section of 1 bytes at -1`},
		{"z", 0, 1, safetensors.ErrRange, `tensor "z": section of 1 bytes at 0 goes past its 0 bytes`},
		{"c", 0, 0, safetensors.ErrInvalid, `tensor "c" is not in the header`},
	}
	w, _ := writer(t)
	for _, tt := range tests {
		// The size that the caller claims is of no account.
		tensor := safetensors.Tensor{Name: tt.name, Size: 100}
		err := w.WriteSection(tensor, make([]byte, tt.n), int64(tt.off))
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestFinish(t *testing.T) {
	tests := []struct {
		name string
		a, b []int // lengths of sections, each at the start
		want string
	}{
		{"nothing", nil, nil, `tensor "a": wrote 0 bytes, want 4`},
		{"first short", []int{3}, []int{2}, `tensor "a": wrote 3 bytes, want 4`},
		{"second short", []int{4}, []int{1}, `tensor "b": wrote 1 bytes, want 2`},
		{"twice", []int{4, 1}, []int{2}, `tensor "a": wrote 5 bytes, want 4`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, h := writer(t)
			for i, lengths := range [][]int{tt.a, tt.b} {
				for _, n := range lengths {
					if err := w.WriteSection(h.Tensors[i], make([]byte, n), 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Finish(); !errors.Is(err, safetensors.ErrIncomplete) || err.Error() != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWriteSectionsConcurrently(t *testing.T) {
	w, h := writer(t)
	var wg sync.WaitGroup
	for _, tensor := range h.Tensors {
		for off := range tensor.Size {
			wg.Go(func() {
				if err := w.WriteSection(tensor, []byte{1}, off); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if err := w.Finish(); err != nil {
		t.Error(err)
	}
}

func TestNewWriterRefusesAForeignLayout(t *testing.T) {
	h, err := parse(fileOf(valid+strings.Repeat(" ", 64), 2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := safetensors.NewWriter(&memory{}, h); !errors.Is(err, safetensors.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) WriteAt([]byte, int64) (int, error) { return 0, errFull }

func TestWriteErrorsArePassedOn(t *testing.T) {
	_, h := writer(t)
	if _, err := safetensors.NewWriter(full{}, h); !errors.Is(err, errFull) {
		t.Errorf("got %v, want %v", err, errFull)
	}
}

// TestLongHeader: a header that is written in pieces, and whose text is not kept
// once it is read, must say what a short one says.
func TestLongHeader(t *testing.T) {
	var tensors []safetensors.Tensor
	for i := range 40_000 {
		name := fmt.Sprintf("model.layers.%d.\"mlp\".experts.%d.down_proj.weight", i/100, i)
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.U8, Shape: []int{i / 1000 % 2}})
	}
	header, err := safetensors.NewHeader(tensors, map[string]string{"format": "pt\n"})
	if err != nil {
		t.Fatal(err)
	}
	var file memory
	if _, err := safetensors.NewWriter(&file, header); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file.b, header.Encode()) {
		t.Error("the header is written otherwise than encoded")
	}
	last := header.Tensors[len(header.Tensors)-1]
	f := open(t, append(file.b, bytes.Repeat([]byte{7}, int(last.Offset+last.Size))...))
	got := f.Header()
	if !reflect.DeepEqual(got.Tensors, header.Tensors) || !reflect.DeepEqual(got.Metadata, header.Metadata) {
		t.Error("the header is read otherwise than it was laid out")
	}
	p := make([]byte, 1)
	if err := f.ReadSection(last, p, 0); err != nil || p[0] != 7 {
		t.Errorf("read %d, %v want 7", p[0], err)
	}
	if err := f.ReadSection(last, p, 1); !errors.Is(err, safetensors.ErrRange) {
		t.Errorf("read past the end of a tensor: %v", err)
	}
}
