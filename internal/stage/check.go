package stage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// Check refuses a destination that would overwrite something. sources are the
// files and folders that are read; beside are names of further files that a
// file destination brings along.
func Check(dest string, folder, force bool, sources, beside []string) error {
	for _, source := range sources {
		if err := apart(dest, source); err != nil {
			return err
		}
	}
	targets := []string{dest}
	for _, name := range beside {
		targets = append(targets, filepath.Join(filepath.Dir(dest), name))
	}
	for _, target := range targets {
		if err := checkTarget(target, folder, force); err != nil {
			return err
		}
	}
	return nil
}

// apart refuses a destination that is, holds, or lies in a source.
func apart(dest, source string) error {
	d, s := resolve(dest), resolve(source)
	if within(d, s) {
		return usage.Errorf("%s lies in the source %s: name another destination", dest, source)
	}
	if within(s, d) {
		return usage.Errorf("%s holds the source %s: name another destination", dest, source)
	}
	a, errA := os.Stat(dest)
	b, errB := os.Stat(source)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return usage.Errorf("%s is the source %s: name another destination", dest, source)
	}
	return nil
}

// resolve follows links as far as the path exists.
func resolve(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

func within(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && (rel == "." || filepath.IsLocal(rel))
}

func checkTarget(target string, folder, force bool) error {
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	switch {
	case err != nil:
		return err
	case !force:
		return usage.Errorf("%s exists: name another destination, or give --force to replace it", target)
	case info.IsDir() != folder:
		return usage.Errorf("%s exists and is %s: name another destination", target, kindOf(info))
	case folder:
		return replaceable(target)
	}
	return nil
}

func kindOf(info fs.FileInfo) string {
	if info.IsDir() {
		return "a folder"
	}
	return "a file"
}

// replaceable lets --force replace model folders alone: a mistyped name must
// not take a folder of other things with it.
func replaceable(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name == "config.json" || name == "model_index.json" || strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".safetensors.index.json") {
			return nil
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return usage.Errorf("%s exists and is no model folder: name another destination", folder)
}
