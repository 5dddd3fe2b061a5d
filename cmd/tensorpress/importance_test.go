package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImportancePage: the commands of the page run as they stand there, on a model of a
// few layers.
func TestImportancePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/importance.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "model"), 0o777); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{
		"model/model.safetensors": "minilm.safetensors", "moments.safetensors": "importance/moments.safetensors", "imatrix.gguf": "importance/imatrix.gguf",
	} {
		if err := copyFile(filepath.Join(dir, to), filepath.Join("../../testdata", from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "model/config.json"), []byte(`{"architectures": ["BertModel"], "model_type": "bert"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	commands := pageCommands(string(page))
	if len(commands) < 2 {
		t.Fatalf("the page has %d commands", len(commands))
	}
	for _, line := range commands {
		words, err := shellWords(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var said strings.Builder
		root := newRoot()
		root.SetArgs(words[1:])
		root.SetOut(&said)
		root.SetErr(&said)
		if err := root.Execute(); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if !strings.Contains(said.String(), "--importance weighs the errors of 6 layers") {
			t.Errorf("%s: %s", line, said.String())
		}
	}
}
