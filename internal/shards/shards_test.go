package shards

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// TestCuts: every shard must be of one part, in runs, whatever the number of parts, and no
// part larger than another by more than the largest shard.
func TestCuts(t *testing.T) {
	sizes := [][]int64{{5}, {1, 1, 1}, {100, 1, 1, 1, 50}, {1, 1, 1, 1, 1000}, {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 3}}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		some := make([]int64, 1+random.IntN(200))
		for i := range some {
			some[i] = 1 + random.Int64N(5_000_000_000)
			if random.IntN(3) == 0 {
				some[i] = 5_000_000_000
			}
		}
		sizes = append(sizes, some)
	}
	for _, sizes := range sizes {
		p := &Plan{}
		var largest int64
		for _, n := range sizes {
			p.Shards = append(p.Shards, File{"x", n})
			largest = max(largest, n)
		}
		for _, n := range []int{1, 2, 3, 8, 64, 1000} {
			cuts := p.Cuts(n)
			if len(cuts) != n+1 || cuts[0] != 0 || cuts[n] != len(sizes) || !slices.IsSorted(cuts) {
				t.Fatalf("%v in %d parts: cuts %v", sizes, n, cuts)
			}
			least, most := int64(math.MaxInt64), int64(0)
			for i := range n {
				var bytes int64
				for _, f := range p.Shards[cuts[i]:cuts[i+1]] {
					bytes += f.Bytes
				}
				least, most = min(least, bytes), max(most, bytes)
			}
			if most-least > largest {
				t.Errorf("%v in %d parts of %d to %d bytes", sizes, n, least, most)
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
		if ok != (damage.note == "") || len(done) < 1 || len(notes) == 0 != ok || !ok && !strings.Contains(notes[0].Text, damage.note) {
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

// TestStrangePlans: a work folder of a newer program, of nobody known, or a file in its place
// is left as it is.
func TestStrangePlans(t *testing.T) {
	for text, want := range map[string]string{
		"{": "is none of tensorpress's", `{"format": 1, "shards": [{"name": "../a"}]}`: "is none of tensorpress's", `{"format": 1, "parts": 1000000000, "shards": [{"name": "a"}]}`: "is none of tensorpress's",
		`{"format": 1, "shards": [{"name": "a", "bytes": -1}]}`: "is none of tensorpress's", `{"format": 1, "shards": [{"name": "a"}, {"name": "a"}]}`: "is none of tensorpress's",
		`{"format": 1, "shards": [{"name": "a", "bytes": 9223372036854775807}, {"name": "b", "bytes": 9223372036854775807}]}`: "is none of tensorpress's", "folder": "plan.json is no file: delete it",
		`{"format": 9, "version": "99.0", "shards": [{"name": "a"}]}`: "is of a newer tensorpress, 99.0", "file": "is no folder", "mine": "holds mine.txt and no records",
	} {
		dir := t.TempDir()
		place := filepath.Join(dir, ".out.parts", ".tensorpress", PlanName)
		switch text {
		case "file":
			place = filepath.Join(dir, ".out.parts")
		case "mine":
			place = filepath.Join(dir, ".out.parts", "mine.txt")
		}
		err := os.MkdirAll(filepath.Dir(place), 0o777)
		if err == nil && text == "folder" {
			err = os.Mkdir(place, 0o777)
		} else if err == nil {
			err = os.WriteFile(place, []byte(text), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keep(t, filepath.Join(dir, "out"), made, true); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		if got, err := os.ReadFile(place); string(got) != text && text != "folder" {
			t.Errorf("%s: became %s, %v", text, got, err)
		}
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

// TestFolderInPlaceOfFile: a folder where a finished file should be is named, and left alone.
func TestFolderInPlaceOfFile(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "out")
	w, err := keep(t, dest, made, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	put(t, w, "config.json", "{}")
	place := filepath.Join(w.Folder(), "config.json")
	if err := errors.Join(os.Remove(place), os.Mkdir(place, 0o777)); err != nil {
		t.Fatal(err)
	}
	done, notes, err := w.Done(context.Background(), []string{"config.json"}, Checking{})
	if len(done) > 0 || len(notes) != 1 || !strings.Contains(notes[0].Text, "is no file any more") || err != nil {
		t.Errorf("%v, %v, %v", done, notes, err)
	}
	d, err := w.Begin("config.json", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte("{}"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Finish(context.Background()); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "is a folder, where a file of") {
		t.Errorf("finished: %v", err)
	}
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
}

// TestWorkWithoutPlan: an older output beside a work folder that lost its plan is not what
// was to be finished.
func TestWorkWithoutPlan(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "out", "model.safetensors")
	if err := errors.Join(os.Mkdir(filepath.Dir(old), 0o777), os.WriteFile(old, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	to := folder{files.Dir(filepath.Dir(old))}
	if whole, err := to.Whole(context.Background()); !whole || err != nil {
		t.Errorf("alone: %v, %v", whole, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".out.parts", ".tensorpress"), 0o777); err != nil {
		t.Fatal(err)
	}
	if whole, err := to.Whole(context.Background()); whole || !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "has no plan of what belongs in it") {
		t.Errorf("beside a work folder: %v, %v", whole, err)
	}
}
