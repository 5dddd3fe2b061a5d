package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// writeWhole writes a file or replaces it in one step: whatever goes wrong, an older one stays
// as it is, and none is there by half. A link is written through.
func writeWhole(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return replaceFile(path, text, 0)
}

// replaceFile is [writeWhole] of a path that is replaced even if it is a link; mode is what
// others may do with the file, 0 for what the system leaves them.
func replaceFile(path string, text []byte, mode os.FileMode) error {
	to, err := createBeside(path)
	if err != nil {
		return err
	}
	if _, err = to.Write(text); mode != 0 {
		err = errors.Join(err, to.Chmod(mode))
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(to.Name(), path)
	}
	if err != nil {
		os.Remove(to.Name())
	}
	return err
}

// createBeside makes a file that will take the place of another.
func createBeside(path string) (*os.File, error) {
	name := filepath.Join(filepath.Dir(path), fmt.Sprintf(".tensorpress.%08x.tmp", rand.Uint32()))
	return os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
}

// writable makes sure, before all work, that [writeWhole] can write a file.
func writable(path string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// cause is an error of the system's without the file's name, which is ours.
func cause(err error) error {
	if of, ok := errors.AsType[*os.PathError](err); ok {
		return of.Err
	}
	return err
}
