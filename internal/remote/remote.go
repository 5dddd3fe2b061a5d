// Package remote reads checkpoints that are not on this machine: repositories of the
// Hugging Face hub, files of web servers and objects of stores, by ranges of bytes, so that
// what a command does not need is never fetched; and it writes to stores, part by part.
package remote

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// schemes are the kinds of addresses, by what stands before "://".
var schemes = map[string]func(address string, p *pace) (files.Source, error){
	"hf":    openHub,
	"http":  openWeb,
	"https": openWeb,
	"s3":    openStore,
	"gs":    openStore,
	"az":    openStore,
}

// Open returns the source at an address. ok is false where the text is no address but a
// path on this machine. Nothing is asked of a network before the source is read, of which
// at most memory bytes are held and read ahead.
func Open(address string, memory int64) (s files.Source, ok bool, err error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok || strings.ContainsAny(scheme, `/\`) {
		return nil, false, nil
	}
	open, known := schemes[strings.ToLower(scheme)]
	switch {
	case !known:
		return nil, false, usage.Errorf("%s: unknown kind of address %q: want %s, or a path", unsignedText(address), scheme+"://", strings.Join(Schemes(), ", "))
	case rest == "":
		return nil, false, usage.Errorf("%s: an address goes on after ://", address)
	}
	s, err = open(address, paceIn(memory))
	return s, err == nil, err
}

// Schemes lists the beginnings of addresses, ascending.
func Schemes() (list []string) {
	for name := range schemes {
		list = append(list, name+"://")
	}
	slices.Sort(list)
	return list
}

// repository is the form of a repository's name on the hub.
var repository = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$`)
})

// OnHub returns the address of a repository that a text like ORG/NAME names, where no
// such path exists here; ok is false for all other texts.
func OnHub(text string) (address string, ok bool) {
	if !repository().MatchString(text) || strings.Contains(text, "--") || strings.Contains(text, "..") {
		return "", false
	}
	if _, err := os.Lstat(text); err == nil {
		return "", false
	}
	// A folder of the same name, or a file's ending, shows that a path was meant.
	folder, name, _ := strings.Cut(text, "/")
	if _, err := os.Lstat(folder); err == nil || hasFileEnding(name) {
		return "", false
	}
	return "hf://" + text, true
}

func hasFileEnding(name string) bool {
	for _, end := range []string{".safetensors", ".json", ".gguf", ".ckpt", ".pt", ".pth", ".bin"} {
		if strings.HasSuffix(strings.ToLower(name), end) {
			return true
		}
	}
	return false
}

// errChanged is the error that a file is not what it was when the run began.
var errChanged = usage.SourceErrorf("changed while it was read: run again once nothing writes to it")

// pages are the parts of a list that were asked for.
type pages map[string]bool

// mostPages is more than any list of a model's files has.
const mostPages = 10_000

// add notes one, and reports whether it is new and the list may go on.
func (p *pages) add(page string) bool {
	if *p == nil {
		*p = pages{}
	}
	ok := !(*p)[page] && len(*p) < mostPages
	(*p)[page] = true
	return ok
}

// sorted are the keys of a map, ascending.
func sorted[T any](of map[string]T) []string { return slices.Sorted(maps.Keys(of)) }

// short is an error of fewer bytes than were asked for.
func short(got, want int64) error { return fmt.Errorf("got %d of %d bytes", got, want) }
