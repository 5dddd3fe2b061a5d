package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestManyPage: the page on several outputs shows files and commands that go together, and
// the columns of the table that comes out.
func TestManyPage(t *testing.T) {
	page, err := os.ReadFile(pagePath("many.md"))
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile("../../testdata/minilm.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	files := map[string][]byte{"model.safetensors": model}
	for _, block := range regexp.MustCompile("(?ms)^```(yaml|json)\n(.*?)^```").FindAllSubmatch(page, -1) {
		name := map[string]string{"yaml": "outputs.yaml", "json": "many.json"}[string(block[1])]
		files[name] = block[2]
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	for _, line := range pageCommands(string(page)) {
		words, err := shellWords(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if words[0] == "mkdir" {
			if err := os.Mkdir(words[1], 0o777); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var out, problems bytes.Buffer
		if status := run(words[1:], &out, &problems); status != 0 {
			t.Errorf("%s: %s", line, problems.String())
		}
		if strings.Contains(line, "quantize") && strings.Contains(line, "outputs.yaml") {
			last = out.String()
		}
	}
	for _, row := range strings.Split(last, "\n")[:4] {
		words := strings.Fields(row)
		if shown := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(words[0]) + " .*$").FindString(string(page)); strings.Join(strings.Fields(shown), " ") != strings.Join(words, " ") {
			t.Errorf("the page shows\n%s\nand this comes out:\n%s", shown, row)
		}
	}
	for _, name := range []string{"minilm-int8.safetensors", "minilm-mxfp8.safetensors", "minilm-4bit/minilm.safetensors", "minilm-4bit/quantization_config.json", "minilm-4bit.json", "small/nvfp4.safetensors"} {
		if _, err := os.Stat(filepath.FromSlash(name)); err != nil {
			t.Error(err)
		}
	}
}
