package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotesComeLast: a terminal shows results and notes as one text, whose last line
// must be what to type instead.
func TestNotesComeLast(t *testing.T) {
	source := filepath.Join(t.TempDir(), "a.safetensors")
	header := `{"a.weight":{"dtype":"BF16","shape":[32,64],"data_offsets":[0,4096]}}`
	header += strings.Repeat(" ", 72-len(header))
	writeFile(t, source, "\x48\x00\x00\x00\x00\x00\x00\x00"+header+strings.Repeat("\x00\x3f", 2048))
	for _, args := range [][]string{
		{"quantize", source, filepath.Join(t.TempDir(), "b.safetensors")},
		{"plan", source},
	} {
		var shown bytes.Buffer
		if status := run(append(args, "--layout", "comfy", "--dtype", "uint4", "--preset", "none"), &shown, &shown); status != 0 {
			t.Fatalf("status %d: %s", status, &shown)
		}
		lines := strings.Split(strings.TrimSpace(shown.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, "type --dtype nvfp4") {
			t.Errorf("%s ends with %q", args[0], last)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
