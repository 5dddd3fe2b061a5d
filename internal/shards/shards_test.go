package shards

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// TestPart: every shard must be of one part, in runs, whatever the number of parts, and a
// part at most a shard larger than another.
func TestPart(t *testing.T) {
	for _, sizes := range [][]int64{{5}, {1, 1, 1}, {100, 1, 1, 1, 50}, {1, 1, 1, 1, 1000}, {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 3}} {
		var all []File
		var most, total int64
		for _, n := range sizes {
			all = append(all, File{"x", n})
			most, total = max(most, n), total+n
		}
		for _, n := range []int{1, 2, 3, 8, 64, 1000} {
			next := 0
			for i := 1; i <= n; i++ {
				from, to := part(all, i, n)
				if from != next || to < from {
					t.Errorf("%v: part %d of %d is %d to %d and the part before ends at %d", sizes, i, n, from, to, next)
				}
				var bytes int64
				for _, f := range all[from:to] {
					bytes += f.Bytes
				}
				if d := float64(bytes) - float64(total)/float64(n); d > float64(most) || -d > float64(most) {
					t.Errorf("%v: part %d of %d has %d bytes of %d", sizes, i, n, bytes, total)
				}
				next = to
			}
			if next != len(all) {
				t.Errorf("%v: %d parts end at shard %d", sizes, n, next)
			}
		}
	}
}

var made = &Plan{
	Format: Format, Version: "1", Source: "s", Settings: "x", Options: map[string]string{"Layer": "a"},
	Shards: []File{{"a/m-1.safetensors", 3}, {"a/m-2.safetensors", 4}}, Others: []File{{"config.json", 2}}, Stems: map[string]string{"a": "m"},
}

func keep(t *testing.T, dest string, p *Plan, alone bool) (Work, error) {
	t.Helper()
	s, err := Of(files.Dir(dest))
	if err != nil {
		t.Fatal(err)
	}
	return s.Keep(context.Background(), stage.Output{Dest: dest, Folder: true, Contents: p.Contents()}, p, alone)
}

func put(t *testing.T, w Work, name, text string) {
	t.Helper()
	d, err := w.Begin(name, int64(len(text)))
	if err == nil {
		_, err = d.WriteAt([]byte(text), 0)
	}
	if err == nil {
		_, err = d.Finish(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFolder: what is finished must be found again and checked by its bytes, and be in
// place at the end with nothing else.
func TestFolder(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	dest := filepath.Join(dir, "out")
	work := filepath.Join(dir, ".out.parts")
	w, err := keep(t, dest, made, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keep(t, dest, made, true); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "another run is at work on") {
		t.Errorf("a second one alone: %v", err)
	}
	other, err := keep(t, dest, made, false)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, "a/m-1.safetensors", "one")
	put(t, other, "a/m-1.safetensors", "one") // the same again
	put(t, w, "config.json", "{}")
	if d, err := w.Begin("a/m-2.safetensors", 4); err != nil || errors.Join(d.Discard(), w.Abort(), other.Abort()) != nil {
		t.Fatal(err)
	}

	changed := *made
	changed.Options = map[string]string{"Layer": "b"}
	changed.Settings = "y"
	if _, err := keep(t, dest, &changed, true); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "with other settings (`Layer`)") {
		t.Errorf("other settings: %v", err)
	}

	names := []string{"a/m-1.safetensors", "a/m-2.safetensors", "config.json"}
	for _, damage := range []struct{ text, note string }{
		{"one", ""}, {"oNe", "other bytes"}, {"on", "has 2 bytes"}, {"", "has 0 bytes"}, {"gone", "is gone"}, {"one", ""},
	} {
		place := filepath.Join(work, "a", "m-1.safetensors")
		if damage.text == "gone" {
			err = os.Remove(place)
		} else {
			err = os.WriteFile(place, []byte(damage.text), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
		if w, err = keep(t, dest, made, true); err != nil {
			t.Fatal(err)
		}
		done, notes, err := w.Done(ctx, names, Checking{AtOnce: 2})
		if err != nil {
			t.Fatal(err)
		}
		_, ok := done[names[0]]
		if ok != (damage.note == "") || len(done) < 1 || len(notes) == 0 != ok || !ok && !strings.Contains(notes[0], damage.note) {
			t.Errorf("%q: %v, %v", damage.text, done, notes)
		}
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
	}

	if w, err = keep(t, dest, made, true); err != nil {
		t.Fatal(err)
	}
	put(t, w, "a/m-2.safetensors", "four")
	stray := filepath.Join(work, "mine.txt")
	if err := os.WriteFile(stray, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "mine.txt") {
		t.Errorf("with a file that is no part: %v", err)
	}
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Commit(ctx), w.Abort()); err != nil {
		t.Fatal(err)
	}
	var there []string
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			there = append(there, filepath.ToSlash(name))
		}
		return err
	})
	if got := strings.Join(there, " "); got != "out/a/m-1.safetensors out/a/m-2.safetensors out/config.json" {
		t.Errorf("left are %s", got)
	}
}

// TestNothingFinished: a plan by which nothing was finished must not stand in the way.
func TestNothingFinished(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "out")
	w, err := keep(t, dest, made, true)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, "config.json", "{}")
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	other := *made
	other.Source = "z"
	if w, err = keep(t, dest, &other, true); err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if done, notes, err := w.Done(context.Background(), []string{"config.json"}, Checking{}); len(done)+len(notes) > 0 || err != nil {
		t.Errorf("of another plan there are %v, %v, %v", done, notes, err)
	}
}
