package convert_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// conversions are all that make an output, from the source that each takes.
var conversions = map[string]func(ctx context.Context, from map[string]string, dest string, force bool, r fixture.Resources) (*report.Report, error){
	"quantize": func(ctx context.Context, from map[string]string, dest string, force bool, r fixture.Resources) (*report.Report, error) {
		return tensorpress.Quantize(ctx, files.Dir(from["plain"]), files.Dir(dest), tensorpress.Options{Force: force, Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
	},
	"dequantize": func(ctx context.Context, from map[string]string, dest string, force bool, r fixture.Resources) (*report.Report, error) {
		return tensorpress.Dequantize(ctx, files.Dir(from["sdnq"]), files.Dir(dest), tensorpress.DequantizeOptions{Force: force, Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
	},
	"transcode": func(ctx context.Context, from map[string]string, dest string, force bool, r fixture.Resources) (*report.Report, error) {
		return tensorpress.Transcode(ctx, files.Dir(from["sdnq"]), files.Dir(dest), tensorpress.TranscodeOptions{Layout: "comfy", Rename: true, Force: force, Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
	},
	"migrate": func(ctx context.Context, from map[string]string, dest string, force bool, r fixture.Resources) (*report.Report, error) {
		return tensorpress.Migrate(ctx, files.Dir(from["comfy"]), files.Dir(dest), tensorpress.MigrateOptions{AddKeys: `{"k": 1}`, Force: force, Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
	},
}

// sources are a model, and what it becomes, as folders.
func sources(t *testing.T) map[string]string {
	dir := t.TempDir()
	from := map[string]string{"plain": filepath.Join(dir, "plain"), "sdnq": filepath.Join(dir, "sdnq"), "comfy": filepath.Join(dir, "comfy")}
	if err := os.Mkdir(from["plain"], 0o777); err != nil {
		t.Fatal(err)
	}
	shape := []int{256, 256}
	fixture.Write(t, filepath.Join(from["plain"], "model.safetensors"), []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: shape}},
		map[string][]byte{"a.weight": make([]byte, 2*256*256)})
	if err := os.WriteFile(filepath.Join(from["plain"], "README.md"), []byte("words"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{"sdnq", "comfy"} {
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(from["plain"]), files.Dir(from[layout]), tensorpress.Options{Layout: layout}); err != nil {
			t.Fatal(err)
		}
	}
	return from
}

// holds are the names in a folder.
func holds(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestDestAppears: what comes to the destination while a run goes on, and what comes to
// lie in an old output that is to be replaced, stays; nothing of the run does.
func TestDestAppears(t *testing.T) {
	from := sources(t)
	for name, convert := range conversions {
		for _, force := range []bool{false, true} {
			dir := t.TempDir()
			dest := filepath.Join(dir, "out")
			if force {
				if err := os.CopyFS(dest, os.DirFS(from["plain"])); err != nil {
					t.Fatal(err)
				}
			}
			came := false
			r := fixture.Resources{Progress: func(_, _ int64) {
				if came {
					return
				}
				came = true
				if err := errors.Join(os.MkdirAll(dest, 0o777), os.WriteFile(filepath.Join(dest, "notes.txt"), []byte("mine"), 0o666)); err != nil {
					t.Error(err)
				}
			}}
			want := []string{"notes.txt"}
			if force {
				want = []string{"README.md", "model.safetensors", "notes.txt"}
			}
			_, err := convert(t.Context(), from, dest, force, r)
			if !errors.Is(err, tensorpress.ErrUsage) || !came {
				t.Errorf("%s, force %v: %v", name, force, err)
			}
			if got := holds(t, dest); !slices.Equal(got, want) {
				t.Errorf("%s, force %v: there are %q", name, force, got)
			}
			if got := holds(t, dir); len(got) != 1 {
				t.Errorf("%s, force %v: left behind: %q", name, force, got)
			}
		}
	}
}

// TestTwoRunsToOneDest: one of them succeeds.
func TestTwoRunsToOneDest(t *testing.T) {
	from := sources(t)
	for name, convert := range conversions {
		dest := filepath.Join(t.TempDir(), "out")
		var errs [2]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = convert(t.Context(), from, dest, false, fixture.Resources{}) })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), tensorpress.ErrUsage) {
			t.Errorf("%s: %v", name, errs)
		}
		if _, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := holds(t, filepath.Dir(dest)); len(got) != 1 {
			t.Errorf("%s: there are %q", name, got)
		}
	}
}

// TestErrorsNameTheOutput: a folder that is not there is named as the user does, and
// nothing of ours is.
func TestErrorsNameTheOutput(t *testing.T) {
	from := sources(t)
	dest := filepath.Join(t.TempDir(), "no", "out")
	for name, convert := range conversions {
		_, err := convert(t.Context(), from, dest, false, fixture.Resources{})
		if err == nil || errors.Is(err, tensorpress.ErrUsage) || strings.Contains(err.Error(), "partial") || !strings.Contains(err.Error(), filepath.Dir(dest)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
