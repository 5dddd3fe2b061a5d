package engine_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestPublishedWindows: codes that lie by columns come back the same from windows that end
// anywhere, as rows and as strips, as they do without windows; (code − zero) · scale says
// what a value is.
func TestPublishedWindows(t *testing.T) {
	t.Parallel()
	const group = 32
	for name, c := range map[string]struct {
		config               string
		rows, cols           int
		interleaved, ordered bool
	}{
		"awq":              {`"awq", "bits": 4, "group_size": 32`, 136, 4992, true, false},
		"awq, wide":        {`"awq", "bits": 4, "group_size": 32`, 16, 16384, true, false},
		"gptq":             {`"gptq", "bits": 4, "group_size": 32, "desc_act": false`, 136, 4992, false, false},
		"gptq in an order": {`"gptq", "bits": 4, "group_size": 32, "desc_act": true`, 136, 4992, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, r := t.TempDir(), rand.New(rand.NewPCG(7, 8))
			codes, zeros, scales := make([]byte, c.rows*c.cols/2), make([]byte, c.cols/group*c.rows/2), make([]byte, c.cols/group*c.rows*2)
			for i := range codes {
				codes[i] = byte(r.Uint32())
			}
			for i := range zeros {
				zeros[i] = byte(r.Uint32())
			}
			for i := 0; i < len(scales); i += 2 {
				binary.LittleEndian.PutUint16(scales[i:], uint16(0x2000+r.IntN(0x800)))
			}
			shape := []int{c.cols / 8, c.rows}
			if c.interleaved {
				shape = []int{c.cols, c.rows / 8}
			}
			tensors := []safetensors.Tensor{
				{Name: "a.qweight", Dtype: safetensors.I32, Shape: shape}, {Name: "a.qzeros", Dtype: safetensors.I32, Shape: []int{c.cols / group, c.rows / 8}},
				{Name: "a.scales", Dtype: safetensors.F16, Shape: []int{c.cols / group, c.rows}},
			}
			data := map[string][]byte{"a.qweight": codes, "a.qzeros": zeros, "a.scales": scales}
			if c.ordered {
				groups := make([]byte, 4*c.cols)
				for i, at := range r.Perm(c.cols) {
					binary.LittleEndian.PutUint32(groups[4*i:], uint32(at/group))
				}
				tensors = append(tensors, safetensors.Tensor{Name: "a.g_idx", Dtype: safetensors.I32, Shape: []int{c.cols}})
				data["a.g_idx"] = groups
			}
			fixture.Write(t, filepath.Join(dir, "model.safetensors"), tensors, data)
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"quantization_config": {"quant_method": `+c.config+`}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			restored := func(dtype string, memory int64) []byte {
				dest := filepath.Join(t.TempDir(), "plain")
				if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dir), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: dtype, Memory: memory, Threads: 3}); err != nil {
					t.Fatal(err)
				}
				return fixture.Body(t, filepath.Join(dest, "model.safetensors"), "a.weight")
			}
			want := restored("f32", 1<<10)
			for range 1000 { // what is said of values
				row, col := r.IntN(c.rows), r.IntN(c.cols)
				g, at, shift, zeroShift := col/group, 4*(col/8*c.rows+row), col%8*4, row%8*4
				if c.ordered {
					g = int(binary.LittleEndian.Uint32(data["a.g_idx"][4*col:]))
				}
				if c.interleaved {
					at, shift = 4*(col*c.rows/8+row/8), [...]int{0, 16, 4, 20, 8, 24, 12, 28}[row%8]
					zeroShift = shift
				}
				code := binary.LittleEndian.Uint32(codes[at:]) >> shift & 15
				zero := binary.LittleEndian.Uint32(zeros[4*(g*c.rows/8+row/8):]) >> zeroShift & 15
				if !c.interleaved {
					zero = (zero + 1) & 15
				}
				var scale [1]float32
				floats.Widen(scale[:], scales[2*(g*c.rows+row):][:2], safetensors.F16)
				value := (float32(code) - float32(zero)) * scale[0]
				if got := want[4*(row*c.cols+col):][:4]; !bytes.Equal(got, fixture.Float32Bytes(value)) {
					t.Fatalf("value [%d, %d] is % x, want %v", row, col, got, value)
				}
			}
			all := make([]float32, c.rows*c.cols)
			floats.Widen(all, want, safetensors.F32)
			narrow := make([]byte, 2*len(all))
			floats.Narrow(narrow, all, safetensors.BF16)
			for _, memory := range []int64{0, 1 << 20, 3 << 20, 5 << 20} {
				if !bytes.Equal(restored("f32", memory), want) {
					t.Errorf("with %d bytes of memory, other values", memory)
				}
				if !bytes.Equal(restored("bf16", memory), narrow) {
					t.Errorf("with %d bytes of memory, other values in BF16", memory)
				}
			}
		})
	}
}
