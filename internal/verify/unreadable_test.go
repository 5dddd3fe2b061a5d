package verify_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
)

// TestUnreadableFiles: a file that may not be read is no fault of the source, and
// is never taken for one that is not there.
func TestUnreadableFiles(t *testing.T) {
	for _, name := range []string{"config.json", "quantization_config.json", "model_index.json", "words.txt", "diffusion_pytorch_model.safetensors"} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			if err := os.CopyFS(source, os.DirFS(fixture.SdnqSource(t, "int8"))); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(source, name)
			if _, err := os.Stat(path); err != nil {
				if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadFile(path); err == nil {
				t.Skip("this user reads any file")
			}
			_, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(filepath.Join(t.TempDir(), "out")), tensorpress.Options{})
			if !errors.Is(err, fs.ErrPermission) || errors.Is(err, tensorpress.ErrSource) || errors.Is(err, tensorpress.ErrUsage) {
				t.Errorf("got %v, want a lack of permission", err)
			}
		})
	}
}
