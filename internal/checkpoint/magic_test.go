package checkpoint_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/source"
)

// TestForeignContent: who has a file of another kind under a .safetensors name is
// told what it is, and nothing else is taken for such.
func TestForeignContent(t *testing.T) {
	fill := strings.Repeat("\x01\x02\x03\x04", 100)
	tests := []struct{ name, content, want string }{
		{"gguf", "GGUF\x03\x00\x00\x00{\x00\x00\x00" + fill, "a GGUF file: start from the safetensors checkpoint"},
		{"ggml", "tjgg\x03\x00\x00\x00" + fill, "a GGML file"},
		{"zip", "PK\x03\x04\x00\x00" + fill, "a zip archive, as PyTorch writes its checkpoints"},
		{"pickle", "\x80\x02}q\x00(X\x01\x00" + fill, "a pickle"},
		{"torch before 1.6", "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M" + fill, "a pickle"},
		{"pickle of protocol 4", "\x80\x04\x95\x10\x00\x00\x00\x00\x00" + fill, "a pickle"},
		{"git lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull brings the file itself"},
		{"page", "\n<!DOCTYPE html><html>", "a web page"},
		{"xml", "<?xml version='1.0'?><Error><Code>AccessDenied", "a web page"},
		{"json", `{"error": "Repository not found"}`, "a JSON text"},
		{"error", "Entry not found", "a server's error"},
		{"gzip", "\x1f\x8b\x08" + fill, "gzip"},
		{"zstd", "\x28\xb5\x2f\xfd" + fill, "zstd"},
		{"7z", "7z\xbc\xaf\x27\x1c" + fill, "a 7z archive"},
		{"rar", "Rar!\x1a\x07\x00" + fill, "a RAR archive"},
		{"tar", strings.Repeat("n", 257) + "ustar\x0000", "a tar archive"},
		{"hdf5", "\x89HDF\r\n\x1a\n" + fill, "an HDF5 file"},
		{"npy", "\x93NUMPY\x01\x00" + fill, "a NumPy array"},
		{"tflite", "\x1c\x00\x00\x00TFL3" + fill, "a TensorFlow Lite model"},
		{"onnx", "\x08\x08\x12\x07pytorch" + fill, "an ONNX model"},
		{"msgpack", "\x82\xa6params\x81" + fill, "a msgpack file"},
		{"picture", "\x89PNG\r\n\x1a\n" + fill, "an image"},
		{"empty", "", "empty: download it again"},
		{"zeros", strings.Repeat("\x00", 600), "nothing but zeros at its beginning"},
		{"ours, cut", weights(t, nil, "a")[:20], ""},
		{"ours, damaged", "\x08\x08\x00\x00\x00\x00\x00\x00{\"a\":" + fill, ""},
		{"anything", fill, ""},
	}
	for _, tt := range tests {
		dir := folder(t, map[string]string{"x.safetensors": tt.content})
		_, err := checkpoint.Open(source.Path(filepath.Join(dir, "x.safetensors")))
		says := err != nil && strings.Contains(err.Error(), "x.safetensors: is no safetensors file: it is ")
		if !errors.Is(err, checkpoint.ErrSource) || says != (tt.want != "") || says && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
