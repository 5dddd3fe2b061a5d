package tensorpress_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// generated writes a checkpoint of that many bytes in BF16 layers of 3072².
func generated(tb testing.TB, bytes int) string {
	tb.Helper()
	const side = 3072
	var tensors []safetensors.Tensor
	for i := range bytes / (2 * side * side) {
		tensors = append(tensors, safetensors.Tensor{Name: layerName(i), Dtype: safetensors.BF16, Shape: []int{side, side}})
	}
	return fixture.Written(tb, tensors)
}

func layerName(i int) string {
	return "blocks." + string(rune('a'+i/26%26)) + string(rune('a'+i%26)) + ".attn.weight"
}

// BenchmarkQuantize converts 1 GiB and copies the same file in the same run:
// ×copy is the ratio that counts.
func BenchmarkQuantize(b *testing.B) {
	const bytes = 1 << 30
	if testing.Short() {
		b.Skip("writes 1 GiB")
	}
	source := generated(b, bytes)
	for _, bench := range []struct{ name, layout, dtype string }{
		{"int8_tensorwise", "comfy", "int8_tensorwise"},
		{"float8_e4m3fn", "comfy", "float8_e4m3fn"},
		{"sdnq-int8", "sdnq", "int8"},
		{"sdnq-uint4", "sdnq", "uint4"},
		{"sdnq-float6_e3m2fn", "sdnq", "float6_e3m2fn"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(bytes)
			o := tensorpress.Options{Layout: bench.layout, Layer: tensorpress.Settings{Dtype: bench.dtype}, Force: true}
			dest := filepath.Join(b.TempDir(), "out.safetensors")
			var copied, converted time.Duration
			for b.Loop() {
				b.StopTimer()
				copied += timed(b, func() error { return copyFile(dest+".copy", source) })
				b.StartTimer()
				converted += timed(b, func() error {
					_, err := tensorpress.Quantize(b.Context(), files.Dir(source), files.Dir(dest), o)
					return err
				})
			}
			b.ReportMetric(converted.Seconds()/copied.Seconds(), "×copy")
		})
	}
}

func timed(b *testing.B, do func() error) time.Duration {
	start := time.Now()
	if err := do(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// copyFile copies through a buffer, as a plain program does.
func copyFile(dest, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dest)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20))
	return err
}
