package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keptFiles are the files of an output that is kept.
var keptFiles = map[string]string{"model-00001-of-00002.safetensors": "one", "model-00002-of-00002.safetensors": "two", "sub/x.json": "{}"}

func openKept(dest string) (*Kept, error) {
	o := Output{Dest: dest, Folder: true, Force: true, Contents: Contents{Stems: map[string]string{"": "model"}}}
	for name := range keptFiles {
		o.Contents.Files = append(o.Contents.Files, name)
	}
	return OpenKept(o, true)
}

func fillKept(t *testing.T, k *Kept) {
	t.Helper()
	for name, text := range keptFiles {
		d, err := k.Draft(name)
		if err == nil {
			_, err = d.WriteAt([]byte(text), 0)
		}
		if err == nil {
			err = d.Put(context.Background())
		}
		if err == nil {
			err = k.WriteRecord(RecordOf(name), []byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// filesIn are all files below a folder with their texts.
func filesIn(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(folder, name))
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// killedAt runs do, and ends it as it reaches a step.
func killedAt(step string, look *func(string), do func()) (reached bool) {
	*look = func(now string) {
		if now == step {
			panic(step)
		}
	}
	defer func() {
		*look = func(string) {}
		reached = recover() != nil
	}()
	do()
	return false
}

// TestKeptKilled: a run that is killed at any step of putting what is kept in place must
// leave what another can go on with, or all in place; an older output is whole until then.
func TestKeptKilled(t *testing.T) {
	onEverySystem(t, func(t *testing.T, look *func(step string)) {
		for _, old := range []bool{false, true} {
			for _, step := range []string{"records aside", "whole", "aside", "exchanged", "to be removed"} {
				dir := t.TempDir()
				dest := filepath.Join(dir, "out")
				if old {
					write(t, filepath.Join(dest, "model.safetensors"), "old")
				}
				k, err := openKept(dest)
				if err != nil {
					t.Fatal(err)
				}
				fillKept(t, k)
				if !killedAt(step, look, func() { err = k.Commit(context.Background()) }) {
					if err != nil {
						t.Fatalf("%s: %v", step, err)
					}
					continue // this system has no such step
				}
				if err := k.Close(); err != nil { // as the system does of a process
					t.Fatal(err)
				}
				if _, err := ReadKept(dest, RecordOf("sub/x.json")); err != nil { // it must be in place, whole
					if got := filesIn(t, dest); len(got) != len(keptFiles) || got["sub/x.json"] != "{}" {
						t.Fatalf("%s, old %v: nothing is kept, and at DEST are %v", step, old, got)
					}
					if !Forget(dest) || Forget(dest) {
						t.Errorf("%s, old %v: what is left could not be forgotten", step, old)
					}
				} else {
					if k, err = openKept(dest); err != nil {
						t.Fatalf("%s, old %v: %v", step, old, err)
					}
					names, err := k.Records()
					if err != nil || len(names) != len(keptFiles) {
						t.Errorf("%s, old %v: records %v, %v", step, old, names, err)
					}
					if err := errors.Join(k.Commit(context.Background()), k.Close()); err != nil {
						t.Fatalf("%s, old %v: %v", step, old, err)
					}
				}
				if got := filesIn(t, dest); len(got) != len(keptFiles) || got["sub/x.json"] != "{}" || got["model-00001-of-00002.safetensors"] != "one" {
					t.Errorf("%s, old %v: at DEST are %v", step, old, got)
				}
				entries, _ := os.ReadDir(dir)
				for _, e := range entries {
					if strings.Contains(e.Name(), keptEnd) {
						t.Errorf("%s, old %v: %s is left", step, old, e.Name())
					}
				}
			}
		}
	})
}

// TestKeptAppears: what comes to be at the destination while a run goes on stays, and so does
// what is kept.
func TestKeptAppears(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "out")
	k, err := openKept(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	fillKept(t, k)
	write(t, filepath.Join(dest, "mine.txt"), "mine")
	for range 2 {
		if err := k.Commit(context.Background()); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "keeps what is finished") {
			t.Fatal(err)
		}
		names, err := k.Records()
		if got := filesIn(t, dest); len(got) != 1 || got["mine.txt"] != "mine" || err != nil || len(names) != len(keptFiles) {
			t.Errorf("at DEST are %v, and the records %v, %v", got, names, err)
		}
	}
	if err := os.RemoveAll(dest); err != nil {
		t.Fatal(err)
	}
	if err := k.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := filesIn(t, dest); len(got) != len(keptFiles) {
		t.Errorf("at DEST are %v", got)
	}
}

// TestSweep: drafts of runs that were killed must go, and those of others stay.
func TestSweep(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "out")
	k, err := openKept(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	living, err := k.Draft("living")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x." + host + ".00000000.partial", "x.ffffffff.00000000.partial", "x." + host + ".00000001.partial.new"} {
		write(t, k.record(name), "")
	}
	k.Sweep()
	got := filesIn(t, filepath.Join(k.Folder(), Records))
	if _, dead := got["x."+host+".00000000.partial"]; dead || len(got) != 3 {
		t.Errorf("left are %v", got)
	}
	if err := living.Put(context.Background()); err != nil {
		t.Error(err)
	}
}
