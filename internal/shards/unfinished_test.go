package shards

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
)

// TestUnfinished: what is read of an output under way is none without all of its files, and
// a folder that has nothing of it, or something else under the plan's name, is read as ever.
func TestUnfinished(t *testing.T) {
	p := &Plan{Format: Format, Shards: []File{{"a.safetensors", 1}, {"b.safetensors", 1}}, Others: []File{{"in/config.json", 1}}, Parts: 2}
	for name, tt := range map[string]struct {
		plan  string
		files []string
		want  string // "" for no error
	}{
		"no plan":       {"", []string{"a.safetensors"}, ""},
		"another's":     {"{}", []string{"a.safetensors"}, ""},
		"no text":       {"\x00", nil, ""},
		"nothing there": {string(p.Encode()), nil, "2 of 2 shards are missing: run quantize with the same settings and `Part` 1/2, 2/2"},
		"a shard":       {string(p.Encode()), []string{"b.safetensors", "in/config.json"}, "1 of 2 shards are missing: run quantize with the same settings and `Part` 1/2"},
		"no config":     {string(p.Encode()), []string{"a.safetensors", "b.safetensors"}, "all of its shards are there: put it in place by `tensorpress finish "},
		"all":           {string(p.Encode()), []string{"a.safetensors", "b.safetensors", "in/config.json"}, ""},
	} {
		folder := filepath.Join(t.TempDir(), ".out.parts")
		write := func(name, text string) {
			path := filepath.Join(folder, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		if tt.plan != "" {
			write(stage.Records+"/"+PlanName, tt.plan)
		}
		for _, one := range tt.files {
			write(one, "x")
		}
		err := Unfinished(source.Path(folder))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "finish") && strings.HasSuffix(err.Error(), "`") && !strings.Contains(err.Error(), filepath.Join(filepath.Dir(folder), "out`")) {
			t.Errorf("%s: %v: names another destination", name, err)
		}
	}
	if err := NotPlaced(filepath.Join(t.TempDir(), "out")); err != nil {
		t.Errorf("nothing at all: %v", err)
	}
}
