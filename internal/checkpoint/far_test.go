package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/source"
)

// far is a store of files of which one cannot be opened, or read.
type far struct {
	files        map[string]string
	fails        string
	whenRead     bool
	opened, read *int
}

func (far) String() string { return "far://m" }

func (f far) List(context.Context) (names []string, err error) {
	for name := range f.files {
		names = append(names, name)
	}
	return names, nil
}

var errFar = errors.New("https://elsewhere/1f2e3d: gave up after 8 tries in 40s")

func (f far) Open(_ context.Context, name string) (files.File, error) {
	if name == f.fails && !f.whenRead {
		*f.opened++
		return nil, errFar
	}
	return farFile{strings.NewReader(f.files[name]), f, name}, nil
}

type farFile struct {
	*strings.Reader
	of   far
	name string
}

func (f farFile) ReadAt(p []byte, off int64) (int, error) {
	if f.name == f.of.fails {
		*f.of.read++
		return 0, errFar
	}
	return f.Reader.ReadAt(p, off)
}

// TestFarFails: an error of a store's names the file that is read, not only where the store
// has it; and what was tried for long and given up is not tried again.
func TestFarFails(t *testing.T) {
	all := map[string]string{indexName: twoShards, "x.safetensors": weights(t, nil, "a", "c"), "y.safetensors": weights(t, nil, "b"), "config.json": "{}"}
	for _, name := range []string{indexName, "x.safetensors", "config.json"} {
		for _, whenRead := range []bool{false, true} {
			var opened, read int
			_, err := checkpoint.Open(source.Of(t.Context(), far{all, name, whenRead, &opened, &read}))
			if err == nil || !strings.Contains(err.Error(), "far://m/"+name) || !strings.Contains(err.Error(), errFar.Error()) {
				t.Errorf("%s: %v", name, err)
			}
			if opened+read != 1 {
				t.Errorf("%s: opened %d times, read %d times", name, opened, read)
			}
		}
	}
}
